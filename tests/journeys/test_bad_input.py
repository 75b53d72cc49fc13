"""Any input ends in a clear answer or a recorded outcome; nothing else is lost by it."""

import json
from typing import Any

import httpx2
import pytest

from tests.support.recordings import signature
from tests.support.stack import API_SECRET, RECEIVE_TOKEN, Stack, eventually, log_of, new_crawl_id, page_event

ENDPOINT = "/api/webhook/firecrawl"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Secret": "wrong"},
        {"X-API-Secret": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": API_SECRET},
        {"X-Firecrawl-Signature": "sha256=" + "0" * 64},
        {"X-Firecrawl-Signature": "sha256="},
        {"X-Firecrawl-Signature": "md5=abc"},
        {b"X-Firecrawl-Signature": "sha256=ünï".encode()},
    ],
)
def test_a_delivery_from_nobody_is_refused_and_not_kept(quick_stack: Stack, headers):
    crawl_id = new_crawl_id()
    answer = quick_stack.anonymous.post(ENDPOINT, json=page_event(crawl_id), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["detail"]
    assert quick_stack.http.get(f"/api/metrics/crawls/{crawl_id}").status_code == 404


def test_a_signature_holds_for_its_own_body_only(quick_stack: Stack):
    crawl_id = new_crawl_id()
    body = json.dumps(page_event(crawl_id)).encode()
    headers = {"X-Firecrawl-Signature": signature(body), "Content-Type": "application/json"}
    assert quick_stack.anonymous.post(ENDPOINT, content=body + b" ", headers=headers).status_code == 401
    assert quick_stack.anonymous.post(ENDPOINT, content=body, headers=headers).status_code == 202
    assert quick_stack.settled(crawl_id)["pages_indexed"] == 1


def test_the_receive_token_lets_a_delivery_in_and_stays_secret(quick_stack: Stack):
    crawl_id = new_crawl_id()
    assert quick_stack.anonymous.post(f"{ENDPOINT}/wrong", json=page_event(crawl_id)).status_code == 401
    assert (
        quick_stack.anonymous.post(f"{ENDPOINT}/{RECEIVE_TOKEN}", json=page_event(crawl_id)).status_code
        == 202
    )
    assert quick_stack.settled(crawl_id)["pages_indexed"] == 1
    assert RECEIVE_TOKEN not in log_of(quick_stack.data_dir).read_text()
    assert RECEIVE_TOKEN not in quick_stack.http.get("/api/metrics/requests", params={"limit": 1000}).text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b'{"type": "crawl.page", "id": "x", "data": [{"markd', 400),
        (b"not json", 400),
        (b'{"type": "crawl.page\xff", "id": "x"}', 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"type": 5, "id": "x"}', 422),
        (b'{"type": "crawl.page"}', 422),
        (b'{"type": "crawl.page", "id": ""}', 422),
        (b'{"type": "crawl.page", "id": "' + b"x" * 300 + b'"}', 422),
        (b'{"type": "crawl.page", "id": "x", "data": "text"}', 422),
        (b'{"type": "crawl.page", "id": "x", "data": [5]}', 422),
        (b'{"type": "crawl.page", "id": "x", "metadata": []}', 422),
    ],
)
def test_what_is_no_delivery_is_refused_with_the_place(quick_stack: Stack, body, status):
    answer = quick_stack.http.post(ENDPOINT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert len(answer.json()["detail"]) > 10


def test_another_content_type_is_refused(quick_stack: Stack):
    answer = quick_stack.http.post(
        ENDPOINT, content=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("announced", [True, False])
def test_a_huge_body_is_refused(quick_stack: Stack, announced):
    size = 100 * 1024 * 1024
    part = b" " * (1024 * 1024)
    content = bytes(size) if announced else (part for _ in range(100))
    try:
        answer = quick_stack.http.post(
            ENDPOINT, content=content, headers={"Content-Type": "application/json"}
        )
    except httpx2.TransportError:
        return  # refused while it was still being sent
    assert answer.status_code == 413
    assert "MAX_BODY_BYTES" in answer.json()["detail"]


def test_a_page_without_a_url_is_a_fact_of_its_crawl(quick_stack: Stack):
    crawl_id = new_crawl_id()
    odd: list[Any] = [
        [{"markdown": "text"}],
        [{"markdown": "text", "metadata": None}],
        [{"markdown": "text", "metadata": {"sourceURL": ""}}],
        None,
        [],
    ]
    for data in odd:
        answer = quick_stack.post_event(page_event(crawl_id) | {"data": data})
        assert answer.status_code == 202, answer.text
        assert answer.json()["queued_jobs"] == 0
    crawl = quick_stack.crawl(crawl_id)
    assert (crawl["failures_without_url"], crawl["total_pages"]) == (5, 0)


@pytest.mark.parametrize(
    ("markdown", "state", "code"),
    [
        ("", "empty", "no_text"),
        (" \n\t\n ", "empty", "no_text"),
        (None, "empty", "no_text"),
        ("Nul \x00 in the middle of a sentence.", "indexed", None),
        ("A cut emoji \ud83d at the end.", "indexed", None),
        ("Grüße aus Köln. 東京は日本の首都です。 Привет, мир.", "indexed", None),
        ("word" * 60_000, "indexed", None),
        ("".join(chr(1 + number % 31) for number in range(4_000)), "empty", "binary_content"),
    ],
    ids=["empty", "blank", "absent", "nul", "surrogate", "languages", "one-long-word", "binary"],
)
def test_odd_content_ends_in_a_clear_outcome(quick_stack: Stack, markdown, state, code):
    crawl_id = new_crawl_id()
    event = page_event(crawl_id, f"https://example.com/{state}", markdown=markdown)
    answer = quick_stack.http.post(
        ENDPOINT, content=json.dumps(event).encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 202, answer.text
    quick_stack.settled(crawl_id, seconds=100)
    [page] = quick_stack.pages(crawl_id)
    assert (page["state"], page["error_code"]) == (state, code)


def test_a_url_of_five_thousand_characters_is_a_page_like_any_other(quick_stack: Stack):
    crawl_id, url = new_crawl_id(), "https://example.com/" + new_crawl_id() + "ü%C3x" * 1_000
    assert quick_stack.post_event(page_event(crawl_id, url)).status_code == 202
    assert quick_stack.post_event(page_event(crawl_id, url[:-1])).status_code == 202
    assert quick_stack.settled(crawl_id)["pages_indexed"] == 2
    assert {page["url"] for page in quick_stack.pages(crawl_id)} == {url, url[:-1]}


def test_a_time_that_cannot_be_read_is_left_out(quick_stack: Stack):
    crawl_id = new_crawl_id()
    for value in ("not a date", 5, None, "2026-13-40T00:00:00Z"):
        event = page_event(crawl_id) | {"metadata": {"initiated_at": value, "url": "https://example.com/"}}
        assert quick_stack.post_event(event).status_code == 202
    crawl = quick_stack.settled(crawl_id)
    assert crawl["initiated_at"] is None
    assert crawl["e2e_duration_ms"] is None
    assert crawl["crawl_url"] == "https://example.com/"


def test_an_event_that_nobody_knows_yet_is_kept_and_ignored(quick_stack: Stack):
    for event_type in ("crawl", "page", "dream.started", "x" * 500):
        answer = quick_stack.post_event({"type": event_type, "id": new_crawl_id(), "success": True})
        assert (answer.status_code, answer.json()["status"]) == (202, "ignored")


@pytest.mark.parametrize("family", ["crawl", "batch_scrape", "extract", "agent", "monitor"])
def test_every_family_of_events_is_acknowledged(quick_stack: Stack, family):
    crawl_id = new_crawl_id()
    answer = quick_stack.post_event(
        {"type": f"{family}.started", "id": crawl_id, "success": True, "data": []}
    )
    assert answer.json() == {
        "status": "acknowledged",
        "event_type": f"{family}.started",
        "crawl_id": crawl_id,
    }
    assert quick_stack.crawl(crawl_id)["status"] == "in_progress"


def test_unknown_crawls_and_paths_say_so(quick_stack: Stack):
    answer = quick_stack.http.get("/api/metrics/crawls/nobody-knows")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Crawl not found: nobody-knows")
    assert quick_stack.http.delete("/api/crawls/nobody-knows").status_code == 404
    assert quick_stack.http.post("/api/crawls/nobody-knows/cancel").status_code == 404
    assert quick_stack.http.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    "url", ["", "example.com", "ftp://example.com/", "http://", "http://[::1", "https://x/" + "y" * 5_000]
)
def test_a_crawl_of_no_url_is_refused(quick_stack: Stack, url):
    answer = quick_stack.http.post("/api/crawls", json={"url": url})
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_a_private_target_is_refused_over_http(quick_stack: Stack):
    answer = quick_stack.http.post("/api/crawls", json={"url": quick_stack.url, "engine": "builtin"})
    assert answer.status_code == 202
    crawl_id = answer.json()["crawl_id"]
    crawl = quick_stack.settled(crawl_id)
    crawl = eventually(lambda: quick_stack.crawl(crawl_id), lambda it: it["status"] != "in_progress")
    assert crawl["status"] == "failed"
    assert "private address" in crawl["error_message"]


def test_after_all_that_a_good_page_is_indexed(quick_stack: Stack):
    crawl_id = new_crawl_id()
    assert quick_stack.post_event(page_event(crawl_id)).status_code == 202
    assert quick_stack.settled(crawl_id)["pages_indexed"] == 1
