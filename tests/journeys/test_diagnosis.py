"""Bottlenecks that are made on purpose: each is named rightly, and none where there is none.

On a busy machine pages take longer, and what uses its processors bounds a crawl that nothing else bounds
more. So each bottleneck is made larger in proportion to what pages take.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

from crawlscope.core.vocabulary import Bottleneck
from crawlscope.database.embedded import EmbeddedPostgres
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.website import Page, Website, html
from tests.support.stack import Stack, eventually, new_crawl_id, page_event, running_stack

pytestmark = pytest.mark.timeout(1_800)

WORDS = "A crawl has pages, and each page has words that are cut into chunks. "
PARAGRAPH = WORDS * 12


USUAL_PAGE_MS = 60.0
"""The time of a small page on an idle machine."""
MAX_SLOWNESS = 15.0
BUSY = {Bottleneck.WORKERS, Bottleneck.INDEX}
"""The bottlenecks on a busy machine."""


@contextmanager
def stack_with(folder: Path, embedder: FakeEmbeddingServer, **settings: str) -> Iterator[tuple[Stack, float]]:
    """With workers that are ready, and how many times longer than usual pages take."""
    given = {"WORKERS": "2", "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url, **settings}
    with running_stack(folder / "data", **given) as running:
        crawl_ids = [deliver_crawl(running, small_pages(16)) for _ in range(2)]
        for crawl_id in crawl_ids:
            running.settled(crawl_id, seconds=300, every_seconds=0.5)
        yield running, slowness(running, crawl_ids[-1])


def slowness(stack: Stack, crawl_id: str) -> float:
    page_ms = stack.crawl(crawl_id)["operations"]["worker"]["mean_ms"]
    return min(MAX_SLOWNESS, max(1.0, page_ms / USUAL_PAGE_MS))


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
    stack.settled(crawl_id, seconds=900, every_seconds=0.5)
    answer = stack.http.get(f"/api/metrics/crawls/{crawl_id}/diagnosis")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    idle = sum(found["idle"].values())
    assert found["busy_ms"] + idle == pytest.approx(found["wall_ms"], rel=1e-6)
    return found


def crawled(stack: Stack, url: str) -> str:
    crawl_id: str = stack.start_crawl({"url": url, "engine": "builtin"}).json()["crawl_id"]
    eventually(lambda: stack.crawl(crawl_id)["completed_at"], bool, seconds=900, every_seconds=0.5)
    return crawl_id


def chain(length: int, page: Page) -> dict[str, Page]:
    """Each page leads to the next only, so that they are requested one after the other."""
    pages = {f"/{each}": html(f"{each} {WORDS}", links=[f"/{each + 1}"]) for each in range(length)}
    delayed = {path: Page(each.body, delay_seconds=page.delay_seconds) for path, each in pages.items()}
    return {"/": delayed["/0"], **delayed}


def test_nothing_is_named_of_a_healthy_crawl(quick_stack: Stack) -> None:
    diagnosis(quick_stack, deliver_crawl(quick_stack, small_pages(1)))  # the workers are ready then

    crawl_id = deliver_crawl(quick_stack, small_pages(10))
    found = diagnosis(quick_stack, crawl_id)

    named = {found["bound_by"], *(other["bound_by"] for other in found["others"])}
    assert named == {"nothing"} or (slowness(quick_stack, crawl_id) > 3 and named <= BUSY), found


@pytest.mark.slow
def test_a_slow_embedder(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    with stack_with(tmp_path, embedder) as (stack, slow):
        embedder.delay_seconds = 2.0 * slow
        found = diagnosis(stack, deliver_crawl(stack, small_pages(80)))

    assert found["bound_by"] == "embedder", found
    assert "more capacity" in found["change"]
    assert found["stages"]["embedding"]["concurrency"] > 2


@pytest.mark.slow
def test_a_slow_index(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    with stack_with(tmp_path, embedder) as (stack, slow):
        [index] = [
            each
            for each in psutil.Process(stack.process.pid).children(recursive=True)
            if each.cmdline()[-2:] == ["crawlscope", "index"]
        ]
        index.suspend()
        waking = Timer(min(10 * slow, 40), index.resume)  # a call that takes a minute is an outage
        waking.start()
        crawl_id = deliver_crawl(stack, small_pages(40))
        found = diagnosis(stack, crawl_id)
        waking.join()

    assert found["bound_by"] == "index", found
    assert "Qdrant" in found["change"]


@pytest.mark.slow
def test_a_slow_site(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    with (
        stack_with(tmp_path, embedder, ALLOW_PRIVATE_TARGETS="true") as (stack, slow),
        Website(chain(8, Page(delay_seconds=1.5 * slow))) as site,
    ):
        found = diagnosis(stack, crawled(stack, site.url))

    assert found["bound_by"] == "slow_site", found
    assert found["evidence"]["mean_response_ms"] > 1_000
    assert found["idle"]["crawler_ms"] > 8_000


@pytest.mark.slow
def test_a_site_that_limits_requests(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    asked: dict[str, int] = {}
    pages = {"/": html(WORDS, links=[f"/{each}" for each in range(6)])}
    pages |= {f"/{each}": html(f"{each} {WORDS}") for each in range(6)}

    with stack_with(tmp_path, embedder, ALLOW_PRIVATE_TARGETS="true") as (stack, slow):
        later = {"Retry-After": f"{4 * slow:.0f}"}

        class Limited(Website):
            def page_for(self, path: str) -> Page:
                asked[path] = asked.get(path, 0) + 1
                refused = path in pages and path != "/" and asked[path] == 1
                return Page(status=429, headers=later) if refused else super().page_for(path)

        with Limited(pages) as site:
            found = diagnosis(stack, crawled(stack, site.url))

    assert found["bound_by"] == "rate_limit", found
    assert found["evidence"]["refusals"] >= 1


@pytest.mark.slow
def test_one_worker(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    embedder.dimension = 8
    with stack_with(tmp_path, embedder, WORKERS="1") as (stack, slow):
        number = round(500 / slow)
        pages = {f"page-{each}": f"{each} ".join([PARAGRAPH] * 200) for each in range(number)}
        found = diagnosis(stack, deliver_crawl(stack, pages))

    assert found["bound_by"] == "workers", found
    assert found["evidence"]["workers"] == 1


@pytest.mark.slow
def test_giant_pages(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    giant = "\n\n".join(f"{each} {PARAGRAPH}" for each in range(3_000))
    with stack_with(tmp_path, embedder) as (stack, slow):
        embedder.delay_seconds = 0.1 * slow
        found = diagnosis(stack, deliver_crawl(stack, {**small_pages(20), "giant": giant}))

    assert found["bound_by"] == "giant_pages", found
    assert found["evidence"]["giant_pages"] == 1


@pytest.mark.slow
def test_an_outage_of_the_database(tmp_path: Path, embedder: FakeEmbeddingServer) -> None:
    server = EmbeddedPostgres(tmp_path / "database")
    try:
        with stack_with(tmp_path, embedder, DATABASE_URL=server.acquire()) as (stack, slow):
            crawl_id = new_crawl_id()
            posted = {"success": True, "type": "crawl.started", "id": crawl_id, "data": []}
            assert stack.post_event(posted).status_code == 202
            server.release()
            eventually(lambda: stack.http.get("/readyz").status_code, lambda status: status == 503)
            time.sleep(10 * slow)
            server.acquire()
            event = page_event(new_crawl_id(), "https://example.com/first")  # workers are back with it
            eventually(lambda: stack.post_event(event).status_code, lambda status: status == 202)
            stack.settled(event["id"], seconds=300, every_seconds=0.5)
            stack.post_event(page_event(crawl_id, "https://example.com/after"))
            end_crawl(stack, crawl_id)
            # Each process records an outage with its next report, within seconds; together they cover it.
            eventually(
                lambda: diagnosis(stack, crawl_id),
                lambda it: it["bound_by"] == "outage" and it["evidence"]["database_unavailable_ms"] > 5_000,
                seconds=300,
                every_seconds=1,
            )
    finally:
        server.release()
