"""Embedding servers over real HTTP: requests, checks of the answers, and the error for each failure."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crawlscope.core.errors import CrawlscopeError, EmbedderUnavailable, PageError, SettingsError
from crawlscope.core.settings import Settings
from crawlscope.indexing.embedders import http, open_embedder
from crawlscope.indexing.embedders.http import MAX_REQUESTS, EmbeddingServer, HttpEmbedder
from crawlscope.indexing.embedders.openai import open_openai
from crawlscope.indexing.embedders.port import EmbedderIdentity
from crawlscope.indexing.embedders.tei import open_tei
from crawlscope.timing import TimingContext, scope, waits_apart
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.polling import eventually

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


Pages = dict[str, asyncio.Task[npt.NDArray[np.float32]]]


async def occupy(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> list[asyncio.Task[npt.NDArray[np.float32]]]:
    """Pages that keep all requests in progress until the server is no longer stuck."""
    server.stuck_on = "stuck"
    server.requests.clear()
    stuck = []
    for number in range(1, MAX_REQUESTS + 1):
        stuck.append(asyncio.create_task(embedder.embed([f"stuck {number}"])))
        await eventually(lambda: len(server.requests) == len(stuck))
    return stuck


async def wait_in_line(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, texts: dict[str, list[str]]
) -> Pages:
    """Pages that wait because all requests are in progress; they share the next one."""
    stuck = await occupy(embedder, server)
    pages = {name: asyncio.create_task(embedder.embed(page)) for name, page in texts.items()}
    await asyncio.sleep(0.05)
    assert len(server.requests) == MAX_REQUESTS
    server.requests.clear()
    server.stuck_on = None
    await asyncio.gather(*stuck)
    return pages


async def test_pages_that_wait_share_requests(embedder: HttpEmbedder, server: FakeEmbeddingServer) -> None:
    texts = {f"page {page}": [f"{page}: {number}" for number in range(5)] for page in range(6)}
    pages = await wait_in_line(embedder, server, texts)
    for name, page in pages.items():
        np.testing.assert_allclose(await page, expected(server, texts[name]), atol=1e-6)
    assert [len(request.texts) for request in server.requests] == [30]


async def test_a_small_page_goes_before_the_rest_of_a_giant_one(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    giant = [f"giant {number}" for number in range(1000)]
    pages = await wait_in_line(embedder, server, {"giant": giant, "small": ["small"]})
    assert (await pages["small"]).shape == (1, 64)
    assert not pages["giant"].done()
    np.testing.assert_allclose(await pages["giant"], expected(server, giant), atol=1e-6)


async def test_a_page_of_two_batches_enters_the_line_at_once(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    server.stuck_on = "text"
    texts = [f"text {number}" for number in range(2 * embedder._limits.batch_texts - 3)]
    server.requests.clear()
    page = asyncio.create_task(embedder.embed(texts))
    await eventually(lambda: sum(len(request.texts) for request in server.requests) == len(texts))
    server.stuck_on = None
    np.testing.assert_allclose(await page, expected(server, texts), atol=1e-6)


async def test_a_page_that_is_too_long_fails_alone(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    server.refuses = "endless"
    pages = await wait_in_line(embedder, server, {"a": ["1", "2"], "b": ["3", "endless", "4"], "c": ["5"]})
    with pytest.raises(PageError, match="maximum context length"):
        await pages["b"]
    np.testing.assert_allclose(await pages["a"], expected(server, ["1", "2"]), atol=1e-6)
    np.testing.assert_allclose(await pages["c"], expected(server, ["5"]), atol=1e-6)


@pytest.mark.parametrize("how", ["status", "nan"])
async def test_a_page_that_the_server_fails_on_fails_alone(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "status":
        server.broken_by = "cursed"
    else:
        vector = server.vector
        monkeypatch.setattr(
            server, "vector", lambda text: [float("nan")] * 64 if text == "cursed" else vector(text)
        )
    pages = await wait_in_line(embedder, server, {"a": ["1", "2"], "b": ["3", "cursed", "4"], "c": ["5"]})
    with pytest.raises(EmbedderUnavailable):
        await pages["b"]
    np.testing.assert_allclose(await pages["a"], expected(server, ["1", "2"]), atol=1e-6)
    np.testing.assert_allclose(await pages["c"], expected(server, ["5"]), atol=1e-6)


@pytest.mark.parametrize(("status", "requests"), [(503, 1), (429, 1), (500, 1 + 3)])
async def test_an_unavailable_server_fails_all_pages_of_a_request(
    embedder: HttpEmbedder, server: FakeEmbeddingServer, status: int, requests: int
) -> None:
    server.delay_seconds = 0.1
    pages = await wait_in_line(embedder, server, {"a": ["1", "2"], "b": ["3"], "c": ["5"]})
    server.fail_with(status)
    failures = await asyncio.gather(*pages.values(), return_exceptions=True)
    assert all(isinstance(failure, EmbedderUnavailable) for failure in failures)
    assert len(server.requests) == requests


async def test_an_answer_without_end_is_cut_off(
    embedder: HttpEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1_000)
    with pytest.raises(EmbedderUnavailable, match="answered more than"):
        await embedder.embed(TEXTS)


async def test_a_cancelled_page_leaves_the_line(embedder: HttpEmbedder, server: FakeEmbeddingServer) -> None:
    stuck = await occupy(embedder, server)
    cancelled, other = [asyncio.create_task(embedder.embed([name])) for name in ("cancelled", "other")]
    await asyncio.sleep(0.05)
    cancelled.cancel()
    server.stuck_on = None
    await asyncio.gather(other, *stuck)
    assert [request.texts for request in server.requests[MAX_REQUESTS:]] == [["other"]]


async def test_the_wait_for_a_request_is_measured_separately(
    embedder: HttpEmbedder, server: FakeEmbeddingServer
) -> None:
    found: list[TimingContext] = []

    async def measured(texts: list[str]) -> None:
        with (
            scope(document_url=texts[0], collect=found.append),
            TimingContext("embedding", "embed_batch") as whole,
            waits_apart(whole, "embedding_wait", "wait"),
        ):
            await embedder.embed(texts)

    await measured(["alone"])
    assert {each.operation_type for each in found} == {"embedding"}
    found.clear()
    stuck = await occupy(embedder, server)
    began = perf_counter()
    late = asyncio.create_task(measured(["late"]))
    await asyncio.sleep(0.2)
    server.stuck_on = None
    server.delay_seconds = 0.3
    await asyncio.gather(late, *stuck)
    took = (perf_counter() - began) * 1000
    wait, own = sorted(found, key=lambda each: each.operation_type == "embedding")
    assert (wait.operation_type, wait.document_url) == ("embedding_wait", "late")
    assert wait.duration_ms >= 200
    assert own.duration_ms >= 300
    assert wait.duration_ms + own.duration_ms <= took


@pytest.mark.parametrize(
    ("truncates", "speaks_base64", "path"),
    [(True, True, "/v1/embeddings"), (True, False, "/embed"), (False, True, "/embed")],
)
async def test_a_tei_server_that_truncates_everywhere_answers_in_base64(
    server: FakeEmbeddingServer, truncates: bool, speaks_base64: bool, path: str
) -> None:
    server.auto_truncate, server.base64 = truncates, speaks_base64
    embedder = await open_tei(server.url)
    server.requests.clear()
    np.testing.assert_allclose(await embedder.embed(TEXTS[:3]), expected(server, TEXTS[:3]), atol=1e-6)
    await embedder.aclose()
    assert embedder.identity.model == server.model
    [request] = server.requests
    assert (request.path, "model" in request.body) == (path, False)


@pytest.mark.parametrize("speaks_base64", [True, None, False])
async def test_vectors_come_in_base64_or_as_numbers(
    server: FakeEmbeddingServer, speaks_base64: bool | None
) -> None:
    server.base64 = speaks_base64
    server.shuffle = True
    embedder = await open_openai(server.url, server.model)
    np.testing.assert_allclose(await embedder.embed(TEXTS), expected(server, TEXTS), atol=1e-6)
    await embedder.aclose()
    asked = "float" if speaks_base64 is False else "base64"
    assert server.requests[-1].body["encoding_format"] == asked


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
    assert embedder.identity == EmbedderIdentity("tei", "fake/embedder", "0123456789abcdef", 64)
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
    assert embedder.identity == EmbedderIdentity("openai", "m", "", 64)
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


@pytest.mark.parametrize("no_proxy", [False, True])
async def test_a_proxy_of_the_environment_is_used(
    server: FakeEmbeddingServer, monkeypatch: pytest.MonkeyPatch, no_proxy: bool
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "embedder.invalid" if no_proxy else "")
    if no_proxy:
        with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
            await open_openai("http://embedder.invalid", "m")
        return
    embedder = await open_openai("http://embedder.invalid", "m")
    assert (await embedder.embed(["one"])).shape == (1, 64)
    await embedder.aclose()
    assert {request.path for request in server.requests} == {"http://embedder.invalid/v1/embeddings"}


async def test_a_password_in_the_address_is_never_shown(server: FakeEmbeddingServer) -> None:
    server.fail_with(503)
    with pytest.raises(CrawlscopeError) as failure:
        await open_tei(server.url.replace("http://", "http://user:password@"))
    assert "password" not in str(failure.value)


async def test_a_server_that_hangs_fails_all_pages_of_a_request_soon(server: FakeEmbeddingServer) -> None:
    async with aclosing(await open_tei(server.url, timeout_seconds=1.0)) as hasty:
        server.stuck_on, began = "word", perf_counter()
        ended = await asyncio.gather(
            *[hasty.embed([f"word {page}"]) for page in range(8)], return_exceptions=True
        )
        took_seconds, server.stuck_on = perf_counter() - began, None
    assert [type(each) for each in ended] == [EmbedderUnavailable] * 8
    assert took_seconds < 8


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    requests: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    for other in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    monkeypatch.setenv(name, f"http://user:word@127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    async with proxy, aclosing(EmbeddingServer("http://embedder.invalid:80")) as through_proxy:
        assert await through_proxy.get("/info") == {}
    assert requests[0].startswith("GET http://embedder.invalid/info ")
    assert "Proxy-Authorization: Basic dXNlcjp3b3Jk" in requests[0]
