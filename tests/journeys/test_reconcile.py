"""Crawls of which deliveries were lost: the service detects the loss automatically, and fetches the missing
pages."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.firecrawl_deliveries import Event
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Page, Site
from tests.support.fakes.loopback import free_port
from tests.support.recordings import read_recorded, recording
from tests.support.stack import Stack, eventually, running_stack

NAMES = [
    "v1-crawl-docs",
    pytest.param("b-v2-crawl-flaky", marks=pytest.mark.slow),
    "b-v2-crawl-cancel",
    pytest.param("v2-batch-200", marks=pytest.mark.slow),
    "v2-batch-slowlink",
    "b-v2-batch-append",
    pytest.param("b-v1-crawl-start404", marks=pytest.mark.slow),
    pytest.param("v2-crawl-startrefused", marks=pytest.mark.slow),
    pytest.param("b-v1-crawl-nohook", marks=pytest.mark.slow),
    "b-v2-crawl-events-page-failed",
]
SUCCEEDED = {"indexed", "unchanged", "empty"}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl() as firecrawl:
        firecrawl.results_per_page = 1_000  # older servers page by size, and none of these is that large
        yield firecrawl


@pytest.fixture
def firecrawl(server: FakeFirecrawl) -> Iterator[FakeFirecrawl]:
    """As good as new for each journey."""
    yield server
    server.site, server.drops, server.older = Site.of(5), lambda event: False, False
    server.hold_after, server.seconds_per_page = None, 0.0
    server.answer_normally()


@pytest.fixture(scope="module")
def stack(server: FakeFirecrawl) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-journeys-") as folder,
        FakeEmbeddingServer() as embedder,
        running_stack(
            Path(folder) / "data",
            WORKERS="1",
            PORT=str(free_port()),
            EMBEDDER="tei",
            EMBEDDER_URL=embedder.url,
            FIRECRAWL_URL=server.url,
        ) as running,
    ):
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_crawl_ends_as_its_api_says(stack: Stack, firecrawl: FakeFirecrawl, name: str) -> None:
    crawl_id = firecrawl.load_recorded(name)
    for number, delivery in enumerate(recording(name, crawl_id)):
        if number % 3 != 1:
            assert stack.deliver(delivery).status_code == 202
    crawl = eventually(
        lambda: stack.crawl(crawl_id),
        lambda it: it["sealed"] and (it["reconciliation"] or {}).get("state") == "settled",
    )

    answers = read_recorded(name)
    documents = {each["metadata"]["sourceURL"]: each["metadata"] for each in answers["documents"]}
    usable = {url for url, metadata in documents.items() if metadata.get("statusCode", 200) < 400}
    errors = answers["errors"][1]["errors"] if answers["errors"][0] == 200 else []
    dropped = {each["url"] for each in errors if "parent crawl" in each["error"]} - usable
    failed = (documents.keys() - usable) | {each["url"] for each in errors} - dropped - usable
    pages = {page["url"]: page for page in stack.pages(crawl_id)}
    assert {url for url, page in pages.items() if page["state"] in SUCCEEDED} == usable
    assert {url for url, page in pages.items() if page["state"] == "failed"} == failed
    assert {url for url, page in pages.items() if page["state"] == "cancelled"} == dropped
    assert (crawl["total_pages"], crawl["pages_indexed"]) == (len(usable | failed), len(usable))
    assert (crawl["pages_failed"], crawl["pages_cancelled"]) == (len(failed), len(dropped))
    assert crawl["status"] == answers["final_status"]["status"]
    if usable:
        assert crawl["operations"]["worker"]["count"] == len(usable)

    recounted = stack.http.post(f"/api/crawls/{crawl_id}/recount")
    assert (recounted.status_code, recounted.json()["changed"]) == (200, {})


WHOLE_WITHIN_SECONDS = 30
"""After its end, with default settings."""


def kept(event: Event) -> bool:
    """One in three; the end comes late, or never."""
    return event.number % 3 == 1 and not event.type.endswith(".completed")


@pytest.mark.parametrize(
    ("family", "older"),
    [
        ("crawl", True),
        ("batch", False),
        pytest.param("crawl", False, marks=pytest.mark.slow),
        pytest.param("batch", True, marks=pytest.mark.slow),
    ],
)
def test_a_crawl_that_loses_two_of_three_deliveries_is_whole_soon(
    stack: Stack, firecrawl: FakeFirecrawl, older: bool, family: str
) -> None:
    base = f"https://{family}-{older}.example/"
    site = Site([*Site.of(20, base).outcomes, Failure(f"{base}down"), Page(f"{base}gone", status_code=404)])
    firecrawl.site, firecrawl.older, firecrawl.seconds_per_page = site, older, 0.05
    firecrawl.drops = lambda event: not kept(event)
    urls = [outcome.url for outcome in site.outcomes]
    answer = stack.start_crawl({"urls": urls} if family == "batch" else {"url": urls[0], "limit": len(urls)})
    job = firecrawl.wait_until_ended(answer.json()["crawl_id"])
    crawl = eventually(lambda: stack.crawl(job.id), lambda it: it["sealed"], WHOLE_WITHIN_SECONDS)

    assert (crawl["status"], crawl["completeness"], crawl["reservation"]) == ("completed", "compared", None)
    assert (crawl["total_pages"], crawl["pages_indexed"], crawl["pages_failed"]) == (22, 20, 2)
    assert {page["url"] for page in stack.pages(job.id)} == set(urls)
    assert crawl["reconciliation"]["added"] >= 10
    recounted = stack.http.post(f"/api/crawls/{job.id}/recount")
    assert (recounted.status_code, recounted.json()["changed"]) == (200, {})


def test_pages_lost_while_nobody_listened_come_while_the_crawl_goes_on(
    stack: Stack, firecrawl: FakeFirecrawl
) -> None:
    """The webhook endpoint restarts: the missed pages are fetched, long before the crawl's end."""
    firecrawl.site = Site.of(6, "https://restarted.example/")
    firecrawl.hold_after = 5
    firecrawl.drops = lambda event: event.number > 1
    job_id = stack.start_crawl({"url": "https://restarted.example/"}).json()["crawl_id"]
    firecrawl.wait_until_scraped(job_id, 5)
    asked = len(firecrawl.requests)
    api = next(
        child
        for child in psutil.Process(stack.process.pid).children(recursive=True)
        if "serve" in child.cmdline()
    )
    api.kill()
    eventually(lambda: healthy(stack), bool, 120)
    crawl = eventually(lambda: stack.crawl(job_id), lambda it: it["pages_indexed"] == 5, 30)
    assert (crawl["status"], crawl["sealed"]) == ("in_progress", False)
    assert len(firecrawl.requests) > asked
    firecrawl.hold_after, firecrawl.drops = None, lambda event: False
    crawl = eventually(lambda: stack.crawl(job_id), lambda it: it["sealed"], WHOLE_WITHIN_SECONDS)
    assert crawl["pages_indexed"] == 6


def healthy(stack: Stack) -> bool:
    try:
        return bool(stack.http.get("/health").json()["status"] == "ok")
    except httpx2.HTTPError:
        return False


def test_it_can_be_asked_for(stack: Stack, firecrawl: FakeFirecrawl) -> None:
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    stack.post_event({"type": "crawl.started", "id": job.id, "success": True, "data": [], "metadata": {}})
    answer = stack.http.post(f"/api/crawls/{job.id}/reconcile")
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert {
        name: found[name] for name in ("crawl_id", "status", "added", "failed", "cancelled", "state")
    } == {
        "crawl_id": job.id,
        "status": "completed",
        "added": 5,
        "failed": 0,
        "cancelled": 0,
        "state": "settled",
    }
    assert stack.settled(job.id)["pages_indexed"] == 5
    assert stack.http.post("/api/crawls/nobody/reconcile").status_code == 404


def test_an_api_that_refuses_is_said_so(stack: Stack, firecrawl: FakeFirecrawl) -> None:
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    stack.post_event({"type": "crawl.started", "id": job.id, "success": True, "data": [], "metadata": {}})
    firecrawl.rate_limit(float("inf"), retry_after=120)
    answer = stack.http.post(f"/api/crawls/{job.id}/reconcile")
    firecrawl.answer_normally()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "120")
    assert "Rate limit" in json.dumps(answer.json())
    assert stack.crawl(job.id)["reconciliation"]["state"] == "failing"
