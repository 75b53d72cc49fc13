"""Bottlenecks that are made on purpose: each is named rightly, and none where there is none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

from crawlscope.database.embedded import EmbeddedPostgres
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.website import Page, Website, html
from tests.support.stack import Stack, eventually, new_crawl_id, page_event, running_stack

WORDS = "A crawl has pages, and each page has words that are cut into chunks. "
PARAGRAPH = WORDS * 12


@contextmanager
def stack_with(folder: Path, embedder: FakeEmbeddingServer, **settings: str) -> Iterator[Stack]:
    given = {"WORKERS": "2", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url, **settings}
    with running_stack(folder / "data", **given) as running:
        yield running


@pytest.fixture
def embedder() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as server:
        yield server


def deliver_crawl(stack: Stack, pages: dict[str, str]) -> str:
    """As Firecrawl does, at once."""
    crawl_id = new_crawl_id()
    for name, text in pages.items():
        url = f"https://example.com/{crawl_id}/{name}"
        posted = stack.post_event(page_event(crawl_id, url, markdown=f"# {name}\n\n{name} {text}"))
        assert posted.status_code == 202, posted.text
    end_crawl(stack, crawl_id)
    return crawl_id


def end_crawl(stack: Stack, crawl_id: str) -> None:
    stack.post_event({"success": True, "type": "crawl.completed", "id": crawl_id, "data": []})


def small_pages(number: int) -> dict[str, str]:
    return {f"page-{each}": WORDS for each in range(number)}


def diagnosis(stack: Stack, crawl_id: str) -> dict[str, Any]:
    stack.settled(crawl_id, seconds=300)
    answer = stack.http.get(f"/api/metrics/crawls/{crawl_id}/diagnosis")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    idle = sum(found["idle"].values())
    assert found["busy_ms"] + idle == pytest.approx(found["wall_ms"], rel=1e-6)
    return found


def crawled(stack: Stack, url: str) -> str:
    crawl_id: str = stack.start_crawl({"url": url, "engine": "builtin"}).json()["crawl_id"]
    eventually(lambda: stack.crawl(crawl_id)["completed_at"], bool, seconds=300)
    return crawl_id


def chain(length: int, page: Page) -> dict[str, Page]:
    """Each page leads to the next only, so that they are requested one after the other."""
    pages = {f"/{each}": html(f"{each} {WORDS}", links=[f"/{each + 1}"]) for each in range(length)}
    delayed = {path: Page(each.body, delay_seconds=page.delay_seconds) for path, each in pages.items()}
    return {"/": delayed["/0"], **delayed}


def test_nothing_is_named_of_a_healthy_crawl(quick_stack: Stack) -> None:
    diagnosis(quick_stack, deliver_crawl(quick_stack, small_pages(1)))  # the workers are ready then

    found = diagnosis(quick_stack, deliver_crawl(quick_stack, small_pages(10)))

    assert (found["bound_by"], found["change"], found["others"]) == ("nothing", None, [])


@pytest.mark.slow
def test_a_slow_embedder(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    embedder.delay_seconds = 2.0
    with stack_with(tmp_path, embedder) as stack:
        found = diagnosis(stack, deliver_crawl(stack, small_pages(80)))

    assert found["bound_by"] == "embedder"
    assert "more capacity" in found["change"]
    assert found["stages"]["embedding"]["concurrency"] > 2


@pytest.mark.slow
def test_a_slow_index(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    with stack_with(tmp_path, embedder) as stack:
        diagnosis(stack, deliver_crawl(stack, small_pages(1)))
        [index] = [
            each
            for each in psutil.Process(stack.process.pid).children(recursive=True)
            if each.cmdline()[-2:] == ["crawlscope", "index"]
        ]
        index.suspend()
        waking = Timer(10, index.resume)
        waking.start()
        crawl_id = deliver_crawl(stack, small_pages(40))
        found = diagnosis(stack, crawl_id)
        waking.join()

    assert found["bound_by"] == "index"
    assert "Qdrant" in found["change"]


@pytest.mark.slow
def test_a_slow_site(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    with (
        Website(chain(8, Page(delay_seconds=1.5))) as site,
        stack_with(tmp_path, embedder, ALLOW_PRIVATE_TARGETS="true") as stack,
    ):
        found = diagnosis(stack, crawled(stack, site.url))

    assert found["bound_by"] == "slow_site"
    assert found["evidence"]["mean_response_ms"] > 1_000
    assert found["idle"]["crawler_ms"] > 8_000


@pytest.mark.slow
def test_a_site_that_limits_requests(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    asked: dict[str, int] = {}
    pages = {"/": html(WORDS, links=[f"/{each}" for each in range(6)])}
    pages |= {f"/{each}": html(f"{each} {WORDS}") for each in range(6)}

    class Limited(Website):
        def page_for(self, path: str) -> Page:
            asked[path] = asked.get(path, 0) + 1
            refused = path in pages and path != "/" and asked[path] == 1
            return Page(status=429, headers={"Retry-After": "4"}) if refused else super().page_for(path)

    with Limited(pages) as site, stack_with(tmp_path, embedder, ALLOW_PRIVATE_TARGETS="true") as stack:
        found = diagnosis(stack, crawled(stack, site.url))

    assert found["bound_by"] == "rate_limit"
    assert found["evidence"]["refusals"] >= 1


@pytest.mark.slow
def test_one_worker(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    pages = {f"page-{each}": f"{each} ".join([PARAGRAPH] * 200) for each in range(500)}
    embedder.dimension = 8
    with stack_with(tmp_path, embedder, WORKERS="1") as stack:
        found = diagnosis(stack, deliver_crawl(stack, pages))

    assert found["bound_by"] == "workers", found
    assert found["evidence"]["workers"] == 1


@pytest.mark.slow
def test_giant_pages(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    embedder.delay_seconds = 0.1
    giant = "\n\n".join(f"{each} {PARAGRAPH}" for each in range(3_000))
    with stack_with(tmp_path, embedder) as stack:
        found = diagnosis(stack, deliver_crawl(stack, {**small_pages(20), "giant": giant}))

    assert found["bound_by"] == "giant_pages", found
    assert found["evidence"]["giant_pages"] == 1


@pytest.mark.slow
def test_an_outage_of_the_database(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    server = EmbeddedPostgres(tmp_path / "database")
    try:
        with stack_with(tmp_path, embedder, DATABASE_URL=server.acquire()) as stack:
            crawl_id = new_crawl_id()
            posted = {"success": True, "type": "crawl.started", "id": crawl_id, "data": []}
            assert stack.post_event(posted).status_code == 202
            server.release()
            eventually(lambda: stack.http.get("/readyz").status_code, lambda status: status == 503)
            time.sleep(10)
            server.acquire()
            event = page_event(crawl_id, "https://example.com/after")
            eventually(lambda: stack.post_event(event).status_code, lambda status: status == 202)
            end_crawl(stack, crawl_id)
            # Each process records an outage with its next report, within seconds.
            found = eventually(
                lambda: diagnosis(stack, crawl_id), lambda it: it["bound_by"] == "outage", seconds=60
            )
    finally:
        server.release()

    assert found["evidence"]["database_unavailable_ms"] > 5_000
