"""Crawls as their users see them: in any order, again, side by side, deleted, and by the crawler."""

import time
from itertools import permutations
from typing import Any

import pytest

from tests.support.fakes.website import Website, html
from tests.support.stack import Stack, eventually, new_crawl_id, page_event

DAY = "2026-01-01T12:00:00Z"


def lifecycle_event(crawl_id: str, action: str, **more: Any) -> dict[str, Any]:
    return {
        "success": True,
        "type": f"crawl.{action}",
        "id": crawl_id,
        "webhookId": new_crawl_id(),
        "data": [],
    } | more


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_events_in_any_order_make_the_same_crawl(quick_stack: Stack, order):
    crawl_id = new_crawl_id()
    metadata = {"initiated_at": DAY, "url": "https://example.com/start"}
    events = [
        lifecycle_event(crawl_id, "started", metadata=metadata),
        page_event(crawl_id, "https://example.com/good") | {"metadata": metadata},
        page_event(
            crawl_id,
            "https://example.com/bad",
            metadata={"sourceURL": "https://example.com/bad", "statusCode": 500},
        ),
        lifecycle_event(crawl_id, "completed", metadata=metadata),
    ]
    for number in order:
        assert quick_stack.post_event(events[number]).status_code == 202
    crawl = quick_stack.settled(crawl_id)
    assert (crawl["status"], crawl["success"]) == ("completed", True)
    assert (crawl["total_pages"], crawl["pages_indexed"], crawl["pages_failed"]) == (2, 1, 1)
    assert crawl["crawl_url"] == "https://example.com/start"
    assert crawl["initiated_at"].startswith("2026-01-01T12:00:00")
    assert crawl["e2e_duration_ms"] > crawl["duration_ms"] >= 0
    assert crawl["searchable_at"] is not None
    assert crawl["time_to_searchable_ms"] > 0


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (["completed", "failed"], "failed"),
        (["failed", "completed", "cancelled"], "cancelled"),
        (["cancelled", "failed"], "cancelled"),
    ],
)
def test_of_several_ends_the_gravest_holds(quick_stack: Stack, ends, status):
    crawl_id = new_crawl_id()
    for action in ends:
        quick_stack.post_event(lifecycle_event(crawl_id, action, error=f"{action}!"))
    crawl = quick_stack.crawl(crawl_id)
    assert (crawl["status"], crawl["success"], crawl["error_message"]) == (status, False, f"{status}!")


def test_a_page_again_replaces_what_it_brought_and_counts_once(quick_stack: Stack):
    crawl_id, url = new_crawl_id(), f"https://{new_crawl_id()}.example/page"
    quick_stack.post_event(page_event(crawl_id, url, markdown="The zebra was here.\n\n" * 300))
    first = quick_stack.settled(crawl_id)
    quick_stack.post_event(page_event(crawl_id, url, markdown="Only a giraffe now."))
    second = quick_stack.settled(crawl_id)
    assert first["total_pages"] == second["total_pages"] == 1
    [page] = quick_stack.pages(crawl_id)
    assert (page["state"], page["chunks"]) == ("indexed", 1)
    filters = {"crawl_id": crawl_id}
    assert quick_stack.search("zebra", mode="keyword", filters=filters)["results"] == []
    assert quick_stack.search("giraffe", mode="keyword", filters=filters)["total"] == 1


def test_a_failure_does_not_undo_a_success(quick_stack: Stack):
    crawl_id, url = new_crawl_id(), "https://example.com/flaky"
    failure = page_event(crawl_id, url) | {"success": False, "error": "timed out"}
    quick_stack.post_event(failure | {"data": [{"metadata": {"sourceURL": url}}]})
    assert quick_stack.crawl(crawl_id)["pages_failed"] == 1
    quick_stack.post_event(page_event(crawl_id, url))
    quick_stack.post_event(
        failure | {"webhookId": new_crawl_id(), "data": [{"metadata": {"sourceURL": url}}]}
    )
    crawl = quick_stack.settled(crawl_id)
    assert (crawl["total_pages"], crawl["pages_indexed"], crawl["pages_failed"]) == (1, 1, 0)


def test_an_unchanged_page_is_skipped_and_found_through_both_crawls(quick_stack: Stack):
    earlier, later = new_crawl_id(), new_crawl_id()
    url = f"https://{earlier}.example/page"
    for crawl_id in (earlier, later):
        quick_stack.post_event(page_event(crawl_id, url, markdown=f"# Stable {earlier}"))
        quick_stack.settled(crawl_id)
    crawl = quick_stack.crawl(later)
    assert (crawl["pages_indexed"], crawl["pages_unchanged"]) == (1, 1)
    assert "embedding" not in crawl["operations"]
    for crawl_id in (earlier, later):
        found = quick_stack.search(earlier, mode="keyword", filters={"crawl_id": crawl_id})
        assert [result["url"] for result in found["results"]] == [url]


def test_two_sources_of_one_address_are_two_pages_and_one_document(quick_stack: Stack):
    crawl_id = new_crawl_id()
    target = f"https://{crawl_id}.example/here"
    for source in ("a", "b"):
        metadata = {"sourceURL": f"https://{crawl_id}.example/{source}", "url": target, "statusCode": 200}
        quick_stack.post_event(page_event(crawl_id, metadata=metadata))
    crawl = quick_stack.settled(crawl_id)
    assert (crawl["total_pages"], crawl["pages_indexed"], crawl["pages_unchanged"]) == (2, 2, 0)
    found = quick_stack.search("page", mode="keyword", filters={"crawl_id": crawl_id})
    assert [result["url"] for result in found["results"]] == [target]


def test_a_deleted_crawl_is_gone_and_stays_gone(quick_stack: Stack):
    kept, deleted = new_crawl_id(), new_crawl_id()
    shared, own = f"https://{kept}.example/shared", f"https://{kept}.example/own"
    for crawl_id, url in ((kept, shared), (deleted, shared), (deleted, own)):
        quick_stack.post_event(page_event(crawl_id, url, markdown=f"# About {kept}"))
        quick_stack.settled(crawl_id)
    assert quick_stack.http.delete(f"/api/crawls/{deleted}").status_code == 204
    assert quick_stack.http.get(f"/api/metrics/crawls/{deleted}").status_code == 404
    assert quick_stack.http.delete(f"/api/crawls/{deleted}").status_code == 404
    late = quick_stack.post_event(page_event(deleted, own))
    assert (late.status_code, late.json()["status"]) == (202, "ignored")
    assert quick_stack.http.get(f"/api/metrics/crawls/{deleted}").status_code == 404
    found = quick_stack.search(kept, mode="keyword", filters={"domain": f"{kept}.example"})
    assert [(result["url"], result["crawl_ids"]) for result in found["results"]] == [(shared, [kept])]
    operations = quick_stack.http.get("/api/metrics/operations", params={"document_url": own}).json()
    assert {each["operation_type"] for each in operations["operations"]} >= {"worker", "embedding"}
    assert {each["crawl_id"] for each in operations["operations"]} == {None}


def test_what_firecrawl_could_not_fetch_cannot_be_tried_again_here(quick_stack: Stack):
    crawl_id, url = new_crawl_id(), "https://example.com/gone"
    quick_stack.post_event(page_event(crawl_id, url, metadata={"sourceURL": url, "statusCode": 404}))
    again = quick_stack.http.post(f"/api/crawls/{crawl_id}/retry")
    said = again.json()
    assert (again.status_code, said["crawl_id"], said["queued"]) == (202, crawl_id, 0)
    assert said["left"] == {"not_received": 1}
    [page] = quick_stack.pages(crawl_id, state="failed")
    assert (page["attempts"], page["error_code"]) == (0, "http_404")


def test_the_numbers_of_a_crawl_add_up(quick_stack: Stack):
    crawl_id = new_crawl_id()
    for number in range(12):
        text = f"# Page {number}\n\n" + f"Sentence number {number} of this page.\n\n" * 40
        quick_stack.post_event(page_event(crawl_id, f"https://{crawl_id}.example/{number}", markdown=text))
    quick_stack.post_event(lifecycle_event(crawl_id, "completed"))
    crawl = quick_stack.settled(crawl_id)
    crawl = quick_stack.crawl(crawl_id, include_per_page=True)
    for kind in ("chunking", "embedding", "qdrant", "bm25"):
        operations = [each for each in crawl["per_page_metrics"] if each["operation_type"] == kind]
        assert len(operations) == crawl["operations"][kind]["count"] == 12
        assert crawl["aggregate_timing"][f"{kind}_ms"] == pytest.approx(
            sum(each["duration_ms"] for each in operations)
        )
    for page in quick_stack.pages(crawl_id):
        assert page["total_ms"] == pytest.approx(sum(page["stages"].values()) + page["unaccounted_ms"])
        assert page["queue_wait_ms"] >= 0


def test_the_crawler_follows_a_site_and_its_crawl_ends_searchable(quick_stack: Stack):
    pages = {
        f"/{number}.html": html(f"<h1>Page {number}</h1><p>Only here: token{number}x.</p>")
        for number in range(8)
    }
    links = "".join(f'<a href="{path}">{path}</a>' for path in pages)
    with Website({"/": html(links), **pages}) as site:
        order = {"url": site.url + "/", "limit": 7, "engine": "builtin"}
        started = quick_stack.start_crawl(order)
        assert started.status_code == 202
        crawl_id = started.json()["crawl_id"]
        assert quick_stack.crawl(crawl_id)["status"] == "in_progress"
        eventually(lambda: quick_stack.crawl(crawl_id)["status"], lambda it: it == "completed")
        crawl = quick_stack.settled(crawl_id)
    assert (crawl["total_pages"], crawl["pages_failed"], crawl["found"], crawl["fetched"]) == (7, 0, 7, 7)
    assert crawl["crawl_url"] == site.url + "/"
    assert crawl["e2e_duration_ms"] > 0
    found = quick_stack.search("token3x", mode="keyword", filters={"crawl_id": crawl_id})
    assert found["results"][0]["url"] == f"{site.url}/3.html"


def test_a_target_that_cannot_be_reached_fails_its_crawl_with_the_reason(quick_stack: Stack):
    order = {"url": "http://127.0.0.1:9/", "engine": "builtin"}
    started = quick_stack.start_crawl(order)
    crawl_id = started.json()["crawl_id"]
    crawl = eventually(lambda: quick_stack.crawl(crawl_id), lambda it: it["status"] != "in_progress")
    assert crawl["status"] == "failed"
    assert crawl["error_message"]
    [page] = quick_stack.pages(crawl_id, state="failed")
    assert page["error"]


def test_a_crawl_can_be_cancelled(quick_stack: Stack):
    def endless(path: str) -> Any:
        time.sleep(0.05)
        number = int(path.strip("/") or 0)
        return html(
            f'<p>Page {number}</p><a href="/{2 * number + 1}">on</a><a href="/{2 * number + 2}">and on</a>'
        )

    with Website(answer=endless) as site:
        started = quick_stack.start_crawl({"url": site.url + "/", "engine": "builtin"})
        crawl_id = started.json()["crawl_id"]
        eventually(
            lambda: quick_stack.crawl(crawl_id), lambda it: it["total_pages"] + it["pages_pending"] > 3
        )
        stopped = quick_stack.http.post(f"/api/crawls/{crawl_id}/cancel")
        assert (stopped.status_code, stopped.json()["cancelled"]) == (202, True)
        crawl = eventually(lambda: quick_stack.crawl(crawl_id), lambda it: it["status"] != "in_progress")
    assert crawl["status"] == "cancelled"
    assert quick_stack.settled(crawl_id)["pages_indexed"] > 3
