"""Recorded crawls, posted to a running service in both directions: every page is accounted for."""

from collections import defaultdict
from typing import Any

import pytest

from tests.support.recordings import Recorded, recording
from tests.support.stack import Stack, new_crawl_id

NAMES = [
    "v1-crawl-docs",
    "b-v2-crawl-flaky",
    "b-v2-crawl-cancel",
    "v0-crawl-cancel",
    "v2-batch-200",
    "v2-batch-slowlink",
    "b-v2-batch-append",
    "b-v1-crawl-start404",
    "v2-crawl-startrefused",
    "b-v1-crawl-nohook",
    "b-v2-crawl-events-page-failed",
]
STATUS = {
    "b-v1-crawl-nohook": "in_progress",
    "b-v2-crawl-events-page-failed": "in_progress",
    "v0-crawl-cancel": "failed",
}
NO_URL = {"v0-crawl-cancel": 86}


def expected_pages(deliveries: list[Recorded]) -> dict[str, dict[str, Any]]:
    """Counted from the recording alone: per source URL whether a usable document came, or why not."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for delivery in deliveries:
        event = delivery.event
        for document in event.get("data") or []:
            metadata = document.get("metadata") or document["content"]["metadata"]
            page = found[metadata["sourceURL"]]
            page_event = event["type"].endswith(".page")
            usable = event["success"] if page_event else True
            if usable and metadata.get("statusCode", 200) < 400:
                page["usable"] = True
            elif usable:
                page.setdefault("code", f"http_{metadata['statusCode']}")
            else:
                page.setdefault("error", event["error"])
    return dict(found)


@pytest.mark.parametrize(
    "backwards",
    [pytest.param(False, id="as-recorded"), pytest.param(True, id="in-reverse", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_crawl_is_accounted_for(quick_stack: Stack, name: str, backwards: bool) -> None:
    crawl_id = new_crawl_id()
    deliveries = recording(name, crawl_id)
    for delivery in reversed(deliveries) if backwards else deliveries:
        answer = quick_stack.deliver(delivery)
        assert answer.status_code == 202, answer.text
    crawl = quick_stack.settled(crawl_id)

    expected = expected_pages(deliveries)
    usable = {url for url, page in expected.items() if page.get("usable")}
    dropped = {url for url, page in expected.items() if "was cancelled" in str(page.get("error"))}
    failed = expected.keys() - usable - dropped
    pages = {page["url"]: page for page in quick_stack.pages(crawl_id)}
    assert pages.keys() == expected.keys()
    assert {
        url for url, page in pages.items() if page["state"] in ("indexed", "unchanged", "empty")
    } == usable
    assert {page["url"] for page in quick_stack.pages(crawl_id, state="failed")} == failed
    assert {url for url, page in pages.items() if page["state"] == "cancelled"} == dropped
    for url in failed:
        assert pages[url]["error"]
        assert pages[url]["error_code"] == expected[url].get("code", pages[url]["error_code"])
        if "error" in expected[url]:
            assert len(pages[url]["error"]) <= 100
            original = pages[url]["error_detail"] or pages[url]["error"]
            assert original == expected[url]["error"]

    assert crawl["total_pages"] == len(usable | failed)
    assert crawl["pages_indexed"] == len(usable)
    assert crawl["pages_failed"] == len(failed)
    assert crawl["pages_cancelled"] == len(dropped)
    assert crawl["failures_without_url"] == NO_URL.get(name, 0)
    assert crawl["status"] == STATUS.get(name, "completed")
    assert all(page["attempts"] == 1 for url, page in pages.items() if url in usable)

    again = [quick_stack.deliver(delivery) for delivery in deliveries if delivery.event.get("data")]
    assert all(answer.status_code == 202 for answer in again)
    repeated = quick_stack.settled(crawl_id)
    assert (repeated["total_pages"], repeated["pages_indexed"]) == (
        crawl["total_pages"],
        crawl["pages_indexed"],
    )
    assert repeated["operations"]["worker"]["count"] == len(usable) if usable else True


def test_every_indexed_page_can_be_found_by_its_crawl(quick_stack: Stack) -> None:
    crawl_id = new_crawl_id()
    for delivery in recording("b-v2-batch-append", crawl_id):
        quick_stack.deliver(delivery)
    crawl = quick_stack.settled(crawl_id)
    for page in quick_stack.pages(crawl_id):
        name = page["url"].rsplit("/", 1)[-1]
        found = quick_stack.search(name, mode="keyword", filters={"crawl_id": crawl_id}, limit=100)
        assert page["final_url"] in [result["url"] for result in found["results"]]
    assert crawl["pages_indexed"] == 6
