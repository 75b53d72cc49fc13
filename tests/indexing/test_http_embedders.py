"""Embedding servers over real HTTP: requests, checks of the answers, and the error for each failure."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crawlscope.core.errors import CrawlscopeError, EmbedderUnavailable, PageError, SettingsError
from crawlscope.core.settings import Settings
from crawlscope.indexing.embedders import open_embedder, open_openai, open_tei
from crawlscope.indexing.embedders.http import HttpEmbedder
from tests.support.fakes.embedding_server import FakeEmbeddingServer

KEY = "sk-very-secret"
TEXTS = [f"text number {number}" for number in range(100)]


async def open_dialect(name: str, server: FakeEmbeddingServer, **options: Any) -> HttpEmbedder:
    if name == "tei":
        return await open_tei(server.url, **options)
    return await open_openai(server.url, server.model, **options)


@pytest.fixture
def server() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as running:
        yield running


@pytest.fixture(params=["tei", "openai"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def embedder(dialect: str, server: FakeEmbeddingServer) -> AsyncIterator[HttpEmbedder]:
    opened = await open_dialect(dialect, server)
    yield opened
    await opened.aclose()


def expected(server: FakeEmbeddingServer, texts: list[str]) -> npt.NDArray[np.float64]:
    return np.array([server.vector(text) for text in texts])


async def test_row_i_belongs_to_text_i(embedder: HttpEmbedder, server: FakeEmbeddingServer) -> None:
    server.shuffle = True
    vectors = await embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(server, TEXTS), atol=1e-6)


async def test_a_page_has_one_request_at_a_time_and_other_pages_have_theirs_in_parallel(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    server.requests.clear()
    server.stuck_on = "giant"
    giant = asyncio.ensure_future(embedder.embed([f"giant {number}" for number in range(200)]))
    await asyncio.sleep(0)
    assert (await embedder.embed(["small"])).shape == (1, 64)
    assert len([request for request in server.requests if request.texts != ["small"]]) <= 1
    server.stuck_on = None
    assert (await giant).shape == (200, 64)


async def test_no_texts_need_no_request(embedder: HttpEmbedder, server: FakeEmbeddingServer) -> None:
    server.requests.clear()
    assert (await embedder.embed([])).shape == (0, 64)
    assert not server.requests


async def test_vectors_are_normalised(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "rows", lambda texts: [[3.0] + [0.0] * 62 + [4.0]] * len(texts))
    (row,) = await embedder.embed(["one"])
    assert (row[0], row[-1]) == pytest.approx((0.6, 0.8))


async def test_tei_reports_its_identity_and_limits(server: FakeEmbeddingServer) -> None:
    server.max_batch = 7
    embedder = await open_tei(server.url)
    assert embedder.identity.fingerprint == "tei:fake/embedder:0123456789abcdef:64"
    assert embedder.max_tokens == 510
    await embedder.embed(TEXTS)
    await embedder.aclose()
    assert max(len(request.texts) for request in server.requests) == 7


async def test_tei_that_serves_another_model_is_refused(server: FakeEmbeddingServer) -> None:
    with pytest.raises(SettingsError, match=r"serves fake/embedder, but CRAWLSCOPE_EMBEDDER_MODEL is mine"):
        await open_tei(server.url, "mine")


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_an_openai_address_may_end_with_its_version(server: FakeEmbeddingServer, ending: str) -> None:
    embedder = await open_openai(server.url + ending, "m")
    assert embedder.identity.fingerprint == "openai:m::64"
    await embedder.aclose()
    assert {request.path for request in server.requests} == {"/v1/embeddings"}


async def test_batches_are_limited_by_tokens(embedder: HttpEmbedder, server: FakeEmbeddingServer) -> None:
    server.requests.clear()
    await embedder.embed(["word " * 4000] * 6)
    assert [len(request.texts) for request in server.requests] == [2, 2, 2]


async def test_batches_too_large_for_the_server_are_halved(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    server.max_batch = 3
    vectors = await embedder.embed(TEXTS)
    np.testing.assert_allclose(vectors, expected(server, TEXTS), atol=1e-6)


async def test_a_text_too_long_for_the_server_is_the_pages_error(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    server.max_characters = 20
    with pytest.raises(PageError, match="maximum context length") as failure:
        await embedder.embed(["short", "a text of more than twenty characters", "short"])
    assert failure.value.code == "text_too_long"


@pytest.mark.parametrize("status", [424, 429, 500, 502, 503])
async def test_transient_failures_are_retryable(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, status: int
) -> None:
    server.requests.clear()
    server.fail_with(status, times=1)
    with pytest.raises(EmbedderUnavailable, match=f"answered {status}: told to fail"):
        await embedder.embed(["one"])
    assert len(server.requests) == 1
    assert len(await embedder.embed(["one"])) == 1


@pytest.mark.parametrize("status", [301, 400, 404, 405, 422])
async def test_permanent_failures_name_the_server(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, status: int
) -> None:
    server.fail_with(status)
    with pytest.raises(SettingsError, match=f"{server.url} answered {status}"):
        await embedder.embed(["one"])


Break = Callable[[FakeEmbeddingServer], object]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda server: setattr(server, "answer_nan", True), "not finite"),
        (lambda server: setattr(server, "answer_html", True), r"something else than JSON \(text/html\)"),
        (lambda server: setattr(server, "wrong_dimension", True), "63 dimensions instead of 64"),
        (lambda server: setattr(server, "drop_last", True), "1 vectors for 2 texts"),
        (lambda server: setattr(server, "rows", lambda texts: [[1.0] * 64] * 3), "3 vectors for 2 texts"),
        (lambda server: setattr(server, "rows", lambda texts: [[0.0] * 64 for _ in texts]), "zeros"),
        (lambda server: setattr(server, "rows", lambda texts: [[1e39] * 64 for _ in texts]), "not finite"),
        (lambda server: setattr(server, "rows", lambda texts: [[None] * 64 for _ in texts]), "not finite"),
        (lambda server: setattr(server, "rows", lambda texts: [["a"] * 64 for _ in texts]), "no vectors"),
        (lambda server: setattr(server, "rows", lambda texts: [[1.0], [1.0, 2.0]]), "no vectors"),
        (lambda server: setattr(server, "rows", lambda texts: [1.0, 2.0]), "no vectors"),
    ],
)
async def test_each_wrong_answer_has_its_own_error(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, break_it: Break, said: str
) -> None:
    break_it(server)
    with pytest.raises(EmbedderUnavailable, match=said) as failure:
        await embedder.embed(["one", "two"])
    assert "\n" not in str(failure.value)


async def test_a_slow_server_is_unavailable(dialect: str, server: FakeEmbeddingServer) -> None:
    server.delay_seconds = 2
    with pytest.raises(EmbedderUnavailable, match=r"did not answer within 0\.1 s"):
        await open_dialect(dialect, server, timeout_seconds=0.1)


async def test_a_stopped_server_is_unavailable(
    embedder: HttpEmbedder, dialect: str, server: FakeEmbeddingServer
) -> None:
    server.stop()
    with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
        await open_dialect(dialect, server)


async def test_the_key_is_sent_and_never_shown(dialect: str, server: FakeEmbeddingServer) -> None:
    server.api_key = KEY
    embedder = await open_dialect(dialect, server, api_key=KEY)
    assert {request.authorization for request in server.requests} == {f"Bearer {KEY}"}
    server.api_key = "another"
    with pytest.raises(SettingsError, match="CRAWLSCOPE_EMBEDDER_API_KEY") as refusal:
        await embedder.embed(["one"])
    await embedder.aclose()
    assert KEY not in str(refusal.value)


async def test_a_text_that_utf_8_cannot_carry_is_embedded(embedder: HttpEmbedder) -> None:
    assert (await embedder.embed(["half a pair: \ud83d"])).shape == (1, 64)


@pytest.mark.parametrize(
    "opening",
    [
        lambda: open_tei("ftp://127.0.0.1"),
        lambda: open_tei("no address"),
        lambda: open_tei("http://user:password@"),
        lambda: open_tei("http://127.0.0.1:9", api_key="line\nbreak"),
        lambda: open_embedder(Settings(_env_file=None, embedder="tei")),
        lambda: open_embedder(Settings(_env_file=None, embedder="openai", embedder_url="http://127.0.0.1:9")),
        lambda: open_embedder(Settings(_env_file=None, embedder="fastembed", embedder_model="no/such-model")),
    ],
)
async def test_settings_that_cannot_work_are_refused(opening: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(SettingsError, match="CRAWLSCOPE_EMBEDDER") as refusal:
        await opening()
    assert "password" not in str(refusal.value)


async def test_settings_choose_the_server(dialect: str, server: FakeEmbeddingServer) -> None:
    server.api_key = KEY
    settings = Settings(
        _env_file=None,
        embedder=dialect,
        embedder_url=server.url,
        embedder_model=server.model,
        embedder_api_key=KEY,
    )
    embedder = await open_embedder(settings)
    assert (await embedder.embed(["one"])).shape == (1, 64)
    await embedder.aclose()


async def test_vectors_have_the_requested_dimensions(server: FakeEmbeddingServer) -> None:
    asked = Settings(
        _env_file=None,
        embedder="openai",
        embedder_url=server.url,
        embedder_model=server.model,
        embedder_dimensions=16,
    )
    embedder = await open_embedder(asked)
    assert (await embedder.embed(["one", "two"])).shape == (2, 16)
    assert embedder.identity.dimension == 16
    await embedder.aclose()
    server.shortens = False
    with pytest.raises(SettingsError, match="CRAWLSCOPE_EMBEDDER_DIMENSIONS"):
        await open_embedder(asked)


async def test_a_password_in_the_address_is_never_shown(server: FakeEmbeddingServer) -> None:
    server.fail_with(503)
    with pytest.raises(CrawlscopeError) as failure:
        await open_tei(server.url.replace("http://", "http://user:password@"))
    assert "password" not in str(failure.value)
