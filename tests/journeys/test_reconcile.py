"""Recorded crawls of which every third delivery was lost: the service notices, and brings what is missing."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.embedding_server import FakeEmbeddingServer
from tests.fakes.firecrawl_recorded import read_recorded
from tests.fakes.firecrawl_server import FakeFirecrawl
from tests.journeys.stack import Stack, eventually, recording, running_stack

NAMES = [
    "v1-crawl-docs",
    "b-v2-crawl-flaky",
    "b-v2-crawl-cancel",
    pytest.param("v2-batch-200", marks=pytest.mark.slow),
    "v2-batch-slowlink",
    "b-v2-batch-append",
    "b-v1-crawl-start404",
    "v2-crawl-startrefused",
    "b-v1-crawl-nohook",
    "b-v2-crawl-events-page-failed",
]
SUCCEEDED = {"indexed", "unchanged", "empty"}


@pytest.fixture(scope="module")
def firecrawl() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl() as server:
        server.results_per_page = 1_000  # older servers page by size, and none of these is that large
        yield server


@pytest.fixture(scope="module")
def stack(firecrawl: FakeFirecrawl) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-journeys-") as folder,
        FakeEmbeddingServer() as embedder,
        running_stack(
            Path(folder) / "data",
            WORKERS="1",
            EMBEDDER="tei",
            EMBEDDER_URL=embedder.url,
            FIRECRAWL_URL=firecrawl.url,
            RECONCILE_AFTER_SECONDS="1",
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
        seconds=60,
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
