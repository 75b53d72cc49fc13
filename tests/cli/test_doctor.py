"""The doctor's findings on parts that are down, are another server, or refuse the key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crawlscope.cli.doctor import Finding, find, require_embedder_of_index
from crawlscope.core.secrets import SECRET_FILE
from crawlscope.core.settings import Settings, load_settings
from crawlscope.indexing.embedders.port import EmbedderIdentity
from tests.support.fakes.firecrawl_http import Reply, Server
from tests.support.fakes.firecrawl_server import FakeFirecrawl, Site
from tests.support.fakes.loopback import free_port


def given(tmp_path: Path, **settings: Any) -> Settings:
    return load_settings(_env_file=None, data_dir=tmp_path, **settings)


@contextmanager
def server(*replies: Reply) -> Iterator[str]:
    """Answers with one after the other, and with the last from then on."""
    left = list(replies)
    running = Server(0, lambda *_: left.pop(0) if len(left) > 1 else left[0])
    try:
        yield f"http://127.0.0.1:{running.port}"
    finally:
        running.stop()


async def firecrawl_found(settings: Settings) -> Finding:
    return await find("firecrawl", settings)


async def test_a_firecrawl_that_takes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")  # what crawls do without, checks do
    with FakeFirecrawl(Site.of(1), api_key="right") as firecrawl:
        settings = given(tmp_path / "data", firecrawl_url=firecrawl.url, firecrawl_api_key="right")
        found = await firecrawl_found(settings)
    assert found == Finding(
        "firecrawl", True, f"Firecrawl at {firecrawl.url} takes the key, 0 crawls run there"
    )
    assert not settings.data_dir.exists()


async def test_a_firecrawl_that_refuses_the_key(tmp_path: Path) -> None:
    with FakeFirecrawl(Site.of(1), api_key="right") as firecrawl:
        found = await firecrawl_found(given(tmp_path, firecrawl_url=firecrawl.url, firecrawl_api_key="wrong"))
    assert not found.ok
    assert "Check CRAWLSCOPE_FIRECRAWL_API_KEY" in found.words
    assert "wrong" not in found.words


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, {"detail": "Not Found"}),
        Reply(404, "<html>nothing here</html>"),
        Reply(200, "<html>welcome</html>"),
        Reply(200, {"hello": "world"}),
    ],
)
async def test_a_server_that_is_no_firecrawl(tmp_path: Path, reply: Reply) -> None:
    with server(reply) as url:
        found = await firecrawl_found(given(tmp_path, firecrawl_url=url))
    assert not found.ok
    assert "heck CRAWLSCOPE_FIRECRAWL_URL" in found.words


async def test_a_firecrawl_that_cannot_be_reached(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = await firecrawl_found(given(tmp_path, firecrawl_url=url))
    assert not found.ok
    assert url in found.words
    assert found.words.endswith(": check CRAWLSCOPE_FIRECRAWL_URL, or look at its logs")


async def test_a_firecrawl_too_old_to_list_its_crawls(tmp_path: Path) -> None:
    no_v2 = Reply(404, "<pre>Cannot GET /v2/crawl/active</pre>")
    with server(no_v2, Reply(404, {"success": False, "error": "Job not found"})) as url:
        found = await firecrawl_found(given(tmp_path, firecrawl_url=url))
    assert found == Finding("firecrawl", True, f"Firecrawl at {url} answers")


def scored(*scores: float) -> Reply:
    return Reply(200, [{"index": number, "score": score} for number, score in enumerate(scores)])


async def test_a_reranker_that_prefers_the_right_text(tmp_path: Path) -> None:
    with server(scored(0.9, 0.1)) as url:
        found = await find("reranker", given(tmp_path, reranker_url=url))
    assert found.ok
    assert found.words.startswith(f"{url} orders texts rightly, ")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (scored(0.1, 0.9), "check that the model of CRAWLSCOPE_RERANKER_URL is one for reranking"),
        (scored(0.5, 0.5), "check that the model of CRAWLSCOPE_RERANKER_URL is one for reranking"),
        (Reply(401, {"error": "wrong key a-secret-key"}), "401 Unauthorized"),
        (Reply(200, "<html>welcome</html>"), "answered without scores"),
    ],
)
async def test_a_reranker_that_works_for_no_search(tmp_path: Path, reply: Reply, says: str) -> None:
    with server(reply) as url:
        found = await find("reranker", given(tmp_path, reranker_url=url, reranker_api_key="a-secret-key"))
    assert not found.ok
    assert says in found.words
    assert "a-secret-key" not in found.words


async def test_a_reranker_that_cannot_be_reached_or_is_not_configured(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = await find("reranker", given(tmp_path, reranker_url=url))
    assert not found.ok
    assert url in found.words
    assert found.words.endswith(": check CRAWLSCOPE_RERANKER_URL, its model and its API key")
    assert (await find("reranker", given(tmp_path))).words == ""


async def test_a_database_url_that_cannot_work_hides_no_other_finding(tmp_path: Path) -> None:
    settings = given(tmp_path, database_url="postgresql://u:p@ss:w0rd-hidden@db.example/x")
    assert (await find("python", settings)).ok
    await require_embedder_of_index(
        EmbedderIdentity("local", "any", "1", 384), settings
    )  # nothing to compare with
    found = await find("database", settings)
    assert not found.ok
    assert "CRAWLSCOPE_DATABASE_URL" in found.words
    assert "hidden" not in found.words


async def test_a_qdrant_server_that_does_not_answer(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    found = await find("index", given(tmp_path, qdrant_url="http://127.0.0.1:9"))
    assert not found.ok
    assert found.words.endswith("check CRAWLSCOPE_QDRANT_URL and CRAWLSCOPE_QDRANT_API_KEY")
    assert not [each for each in recwarn if issubclass(each.category, UserWarning)]


@pytest.mark.parametrize("content", [b"\xff", b"two words"])
async def test_a_kept_secret_that_cannot_be_used(tmp_path: Path, content: bytes) -> None:
    kept = tmp_path / SECRET_FILE
    kept.write_bytes(content)
    kept.chmod(0o600)
    found = await find("secrets", given(tmp_path))
    assert not found.ok
    assert found.words == f"{kept} contains no usable secret: remove it, the next start makes another"
