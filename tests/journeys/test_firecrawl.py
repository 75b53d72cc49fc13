"""Crawls and batch scrapes that Firecrawl is asked for: until they are searchable, cancelled or refused."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.commands import crawlscope
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.firecrawl_http import Reply
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Site
from tests.support.fakes.loopback import free_port
from tests.support.mcp_clients import answered, over_http
from tests.support.recordings import RECORDED_HMAC_SECRET
from tests.support.stack import API_SECRET, Stack, eventually, log_of, running_stack

KEY = "fc-key-of-these-journeys"
PAGES = 6
NEW_CONTEXT = r"00-[0-9a-f]{32}-[0-9a-f]{16}-01"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl(api_key=KEY) as firecrawl:
        yield firecrawl


@pytest.fixture(scope="module")
def embedder() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as running:
        yield running


def settings_for(firecrawl: FakeFirecrawl, embedder: FakeEmbeddingServer, **more: str) -> dict[str, str]:
    return {
        "FIRECRAWL_URL": firecrawl.url,
        "FIRECRAWL_API_KEY": KEY,
        "FIRECRAWL_WEBHOOK_SECRET": "",
        "RECONCILE_AFTER_SECONDS": "2",
        "EMBEDDER": "tei",
        "EMBEDDER_URL": embedder.url,
        "WORKERS": "1",
        **more,
    }


@pytest.fixture(scope="module")
def stack(
    server: FakeFirecrawl, embedder: FakeEmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("firecrawl") / "data"
    with running_stack(folder, **settings_for(server, embedder)) as running:
        yield running


@pytest.fixture
def firecrawl(server: FakeFirecrawl) -> Iterator[FakeFirecrawl]:
    """As good as new for each journey; its site has pages that no other journey has."""
    server.site = Site.of(PAGES, f"https://{uuid4().hex}.example/")
    server.requests.clear()
    yield server
    server.outage = None
    server.hold_after = None
    server.drops = lambda event: False
    server.answer_normally()


def start_url(firecrawl: FakeFirecrawl) -> str:
    return firecrawl.site.outcomes[0].url


def started(stack: Stack, order: dict[str, Any]) -> str:
    answer = stack.start_crawl(order)
    assert answer.status_code == 202, answer.text
    return answer.json()["crawl_id"]


def ended(stack: Stack, crawl_id: str) -> dict[str, Any]:
    return eventually(
        lambda: stack.crawl(crawl_id),
        lambda crawl: crawl["status"] != "in_progress" and crawl["pages_pending"] == 0,
        60,
    )


def listed(stack: Stack) -> int:
    return stack.http.get("/api/metrics/crawls").json()["total"]


def order_of(firecrawl: FakeFirecrawl) -> dict[str, Any]:
    [order] = [request.body for request in firecrawl.requests if request.starts]
    return order


def test_a_crawl_is_reported_and_becomes_searchable(stack: Stack, firecrawl: FakeFirecrawl):
    url = start_url(firecrawl)
    asked_at = time.time()
    answer = stack.start_crawl({"url": url, "limit": PAGES})
    assert answer.status_code == 202, answer.text
    crawl_id = answer.json()["crawl_id"]
    assert answer.json() == {"crawl_id": crawl_id, "crawl_url": url, "status": "in_progress"}
    assert crawl_id in firecrawl.jobs
    crawl = ended(stack, crawl_id)
    assert (crawl["status"], crawl["success"], crawl["pages_indexed"]) == ("completed", True, PAGES)
    assert (crawl["engine"], crawl["found"], crawl["fetched"]) == ("firecrawl", None, None)
    assert crawl["crawl_url"] == url
    assert crawl["e2e_duration_ms"] >= crawl["duration_ms"] >= 0
    assert 0 < crawl["time_to_searchable_ms"] < (time.time() - asked_at) * 1000
    assert "initiated_at" not in crawl["lacks"]
    found = stack.search("page-3.html", mode="keyword", filters={"crawl_id": crawl_id})
    assert found["total"] == PAGES

    order = order_of(firecrawl)
    assert (order["url"], order["limit"]) == (url, PAGES)
    assert order["webhook"]["url"] == f"{stack.url}/api/webhook/firecrawl"
    assert order["webhook"]["headers"] == {"X-API-Secret": API_SECRET}
    assert order["webhook"].get("events", ["started", "page", "completed", "failed"])
    metadata = order["webhook"]["metadata"]
    assert crawl["extra_metadata"] == metadata
    assert metadata["url"] == url
    assert re.fullmatch(NEW_CONTEXT, metadata["traceparent"])
    assert all(isinstance(value, str) for value in metadata.values())
    recounted = stack.http.post(f"/api/crawls/{crawl_id}/recount")
    assert recounted.json()["changed"] == {}


def test_how_far_it_is_follows_from_what_firecrawl_says(stack: Stack, firecrawl: FakeFirecrawl):
    """Also where its total shrinks by the pages that fail."""
    base = start_url(firecrawl)
    lost = [Failure(f"{base}/lost-{number}", "SCRAPE_TIMEOUT", "It timed out.") for number in range(2)]
    firecrawl.site = Site([*lost, *Site.of(20, base).outcomes])
    firecrawl.hold_after = 5
    crawl_id = started(stack, {"url": base})
    crawl = eventually(
        lambda: stack.crawl(crawl_id),
        lambda it: it["pages_expected"] is not None and it["pages_indexed"] == 3 and it["pages_failed"] == 2,
        60,
    )
    assert (crawl["found"], crawl["pages_expected"]) == (None, 22)
    assert crawl["awaits"] == "Firecrawl to finish"
    firecrawl.hold_after = None
    crawl = ended(stack, crawl_id)
    assert (crawl["pages_expected"], crawl["total_pages"]) == (None, 22)


def test_of_a_batch_it_is_known_at_once_how_many_pages_there_are(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.hold_after = 1
    crawl_id = started(stack, {"urls": [outcome.url for outcome in firecrawl.site.outcomes]})
    assert stack.crawl(crawl_id)["pages_expected"] == PAGES


@pytest.mark.parametrize("older", [False, True])
def test_a_start_page_that_cannot_be_had_fails_the_crawl_as_the_built_in_crawler_says_it(
    stack: Stack, firecrawl: FakeFirecrawl, older: bool
):
    url = start_url(firecrawl)
    firecrawl.site = Site([Failure(url, "SCRAPE_DNS_RESOLUTION_ERROR", "DNS resolution failed")])
    firecrawl.older = older
    try:
        done = command(stack, firecrawl, "crawl", url)
    finally:
        firecrawl.older = False
    crawl_id = done.stdout.split()[1]
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"crawlscope: crawl {crawl_id} failed: {url} could not be crawled: ")
    assert f"Crawl {crawl_id}  failed" in done.stdout
    assert stack.crawl(crawl_id)["status"] == "completed"


def test_options_and_the_trace_are_passed_on(stack: Stack, firecrawl: FakeFirecrawl):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    order = {
        "url": start_url(firecrawl),
        "engine": "firecrawl",
        "scrape_options": {"onlyMainContent": True, "formats": ["markdown", "links"]},
        "crawl_options": {"crawlEntireDomain": True},
    }
    token = (stack.data_dir / "local-token").read_text()
    headers = {"X-Crawlscope-Local": token, "traceparent": trace}
    answer = stack.http.post("/api/crawls", json=order, headers=headers)
    assert answer.status_code == 202, answer.text
    sent = order_of(firecrawl)
    assert sent["scrapeOptions"] == order["scrape_options"]
    assert sent["crawlEntireDomain"] is True
    assert "limit" not in sent
    assert sent["webhook"]["metadata"]["traceparent"] == trace


def test_pages_may_come_before_the_start_is_answered(stack: Stack, firecrawl: FakeFirecrawl):
    """Its session exists by then, and is the same as ever."""
    url, calls = start_url(firecrawl), list[Any]()

    def slow_to_answer(request: Any) -> bool:
        if request.starts and not calls:
            calls.append(firecrawl.start("crawl", request.body))
            firecrawl.wait_until_delivered(calls[0].id)
            firecrawl.answer_with(
                Reply(200, {"success": True, "id": calls[0].id}), times=1, applies_to=lambda it: it.starts
            )
        return False

    firecrawl.answer_with(Reply(500, {}), applies_to=slow_to_answer)
    crawl_id = started(stack, {"url": url})
    assert crawl_id == calls[0].id
    crawl = ended(stack, crawl_id)
    assert (crawl["status"], crawl["pages_indexed"], crawl["engine"]) == ("completed", PAGES, "firecrawl")
    assert crawl["initiated_at"] <= crawl["started_at"]
    assert crawl["e2e_duration_ms"] > 0


def test_a_batch_scrapes_just_its_urls_and_names_what_is_none(stack: Stack, firecrawl: FakeFirecrawl):
    urls = [outcome.url for outcome in firecrawl.site.outcomes[:3]]
    answer = stack.start_crawl({"urls": [*urls, "no url", urls[0], "ftp://files.example/"]})
    assert answer.status_code == 202, answer.text
    assert answer.json()["invalid_urls"] == ["no url", "ftp://files.example/"]
    assert answer.json()["crawl_url"] == urls[0]
    crawl = ended(stack, answer.json()["crawl_id"])
    assert (crawl["status"], crawl["total_pages"], crawl["pages_indexed"]) == ("completed", 3, 3)
    assert crawl["e2e_duration_ms"] > 0
    assert order_of(firecrawl)["urls"] == urls


@pytest.mark.parametrize("older", [False, True])
def test_a_cancelled_crawl_is_cancelled_and_so_are_its_dropped_pages(
    stack: Stack, firecrawl: FakeFirecrawl, older: bool
):
    firecrawl.older, firecrawl.hold_after = older, 2
    try:
        crawl_id = started(stack, {"url": start_url(firecrawl)})
        firecrawl.wait_until_scraped(crawl_id, 2)
        answer = stack.http.post(f"/api/crawls/{crawl_id}/cancel")
        assert (answer.status_code, answer.json()) == (202, {"crawl_id": crawl_id, "cancelled": True})
        assert stack.crawl(crawl_id)["status"] == "cancelled"
        crawl = eventually(
            lambda: stack.crawl(crawl_id), lambda it: it["pages_cancelled"] == PAGES - 2 and it["sealed"]
        )
        assert (crawl["status"], crawl["success"]) == ("cancelled", False)
        assert (crawl["pages_indexed"], crawl["pages_failed"]) == (2, 0)
        again = stack.http.post(f"/api/crawls/{crawl_id}/cancel")
        assert (again.status_code, again.json()["cancelled"]) == (202, False)
    finally:
        firecrawl.older = False


def test_a_crawl_that_was_started_at_firecrawl_can_be_cancelled(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.hold_after = 1
    webhook = {"url": f"{stack.url}/api/webhook/firecrawl", "headers": {"X-API-Secret": API_SECRET}}
    job = firecrawl.start(
        "batch_scrape", {"urls": ["https://a.example/1", "https://a.example/2"], "webhook": webhook}
    )
    eventually(
        lambda: stack.http.get(f"/api/metrics/crawls/{job.id}").status_code, lambda status: status == 200
    )
    assert stack.http.post(f"/api/crawls/{job.id}/cancel").json()["cancelled"] is True
    assert stack.crawl(job.id)["status"] == "cancelled"


def test_what_ended_unheard_is_not_cancelled_but_learned_of(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.drops = lambda event: event.type == "crawl.completed"
    crawl_id = started(stack, {"url": start_url(firecrawl)})
    firecrawl.wait_until_delivered(crawl_id)
    answer = stack.http.post(f"/api/crawls/{crawl_id}/cancel")
    assert (answer.status_code, answer.json()["cancelled"]) == (202, False)
    assert not firecrawl.jobs[crawl_id].cancelled
    assert stack.crawl(crawl_id)["status"] == "completed"


def test_a_deleted_crawl_is_cancelled_at_firecrawl(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.hold_after = 2
    crawl_id = started(stack, {"url": start_url(firecrawl)})
    firecrawl.wait_until_scraped(crawl_id, 2)
    answer = stack.http.delete(f"/api/crawls/{crawl_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "x-crawl-goes-on" not in answer.headers
    assert firecrawl.jobs[crawl_id].cancelled
    firecrawl.wait_until_delivered(crawl_id)
    assert stack.http.get(f"/api/metrics/crawls/{crawl_id}").status_code == 404


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda firecrawl: setattr(firecrawl, "outage", "refused"), "cannot be reached"),
        (lambda firecrawl: firecrawl.answer_with(Reply(403, {"error": "not yours ü"})), "not yours ?"),
    ],
    ids=["unavailable", "refuses"],
)
def test_a_crawl_that_goes_on_at_firecrawl_is_deleted_all_the_same_and_that_is_said(
    stack: Stack, firecrawl: FakeFirecrawl, spoil: Any, words: str
):
    firecrawl.hold_after = 1
    crawl_id = started(stack, {"url": start_url(firecrawl)})
    firecrawl.wait_until_scraped(crawl_id, 1)
    spoil(firecrawl)
    ended = command(stack, firecrawl, "delete", crawl_id, "--yes", "--json")
    assert ended.returncode == 0
    assert words in json.loads(ended.stdout)["goes_on"]
    [line] = ended.stderr.splitlines()
    assert "may continue at Firecrawl" in line
    assert stack.http.get(f"/api/metrics/crawls/{crawl_id}").status_code == 404
    assert not firecrawl.jobs[crawl_id].cancelled
    assert f"deleted_crawl_continued crawl_id={crawl_id}" in log_of(stack.data_dir).read_text()


def test_what_has_ended_or_is_forgotten_is_deleted_without_a_word(stack: Stack, firecrawl: FakeFirecrawl):
    over = started(stack, {"url": start_url(firecrawl)})
    ended(stack, over)
    firecrawl.hold_after = 1
    forgotten = started(stack, {"url": start_url(firecrawl)})
    firecrawl.expire(forgotten)
    for crawl_id in (over, forgotten):
        answer = stack.http.delete(f"/api/crawls/{crawl_id}")
        assert (answer.status_code, answer.headers.get("x-crawl-goes-on")) == (204, None)
    assert stack.http.delete(f"/api/crawls/{over}").status_code == 404


def test_failed_pages_are_scraped_again_by_firecrawl_as_a_crawl_of_their_own(
    stack: Stack, firecrawl: FakeFirecrawl
):
    lost = f"{start_url(firecrawl)}/lost"
    firecrawl.site = Site(
        [*firecrawl.site.outcomes, Failure(lost, "SCRAPE_TIMEOUT", "The scrape timed out.")]
    )
    crawl_id = started(stack, {"url": start_url(firecrawl)})
    ended(stack, crawl_id)
    firecrawl.site = Site.of(PAGES, start_url(firecrawl))
    done = command(stack, firecrawl, "retry", crawl_id, "--rescrape")
    assert (done.returncode, done.stderr) == (0, "")
    again = done.stdout.split()[-2]
    assert ended(stack, again)["pages_indexed"] == 1
    assert [page["url"] for page in stack.pages(again)] == [lost]
    assert stack.crawl(crawl_id)["pages_failed"] == 1


@pytest.mark.parametrize("kind", ["crawl", "batch_scrape"])
def test_what_firecrawl_alone_knows_is_taken_into_the_records(
    stack: Stack, firecrawl: FakeFirecrawl, kind: str
):
    urls = [outcome.url for outcome in firecrawl.site.outcomes]
    job = firecrawl.start(kind, {"url": urls[0], "urls": urls})
    firecrawl.wait_until_ended(job.id)
    assert stack.http.get(f"/api/metrics/crawls/{job.id}").status_code == 404
    done = command(stack, firecrawl, "reconcile", job.id)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "The crawl was not known here and is recorded now. completed: 6 pages fetched."
    )
    crawl = ended(stack, job.id)
    assert (crawl["status"], crawl["pages_indexed"]) == ("completed", PAGES)
    began_at = datetime.fromisoformat(job.status_answer("v2", 0, 0, "")["createdAt"])
    times = datetime.fromisoformat(crawl["started_at"]), datetime.fromisoformat(crawl["completed_at"])
    assert began_at == times[0] <= times[1]
    again = stack.http.post(f"/api/crawls/{job.id}/reconcile").json()
    assert (again["adopted"], again["added"]) == (False, 0)
    assert stack.http.post(f"/api/crawls/{job.id}/recount").json()["changed"] == {}


def test_what_nobody_knows_or_was_deleted_is_not(stack: Stack, firecrawl: FakeFirecrawl):
    job = firecrawl.start("crawl", {"url": start_url(firecrawl)})
    firecrawl.wait_until_ended(job.id)
    assert stack.http.post(f"/api/crawls/{job.id}/reconcile").status_code == 202
    assert stack.http.delete(f"/api/crawls/{job.id}").status_code == 204
    for crawl_id, words in (
        (job.id, "it was deleted here"),
        (str(uuid4()), "Firecrawl knows no such crawl"),
        ("no id!", "that is no id of Firecrawl's"),
    ):
        answer = stack.http.post(f"/api/crawls/{crawl_id}/reconcile")
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith(f"Crawl not found: {crawl_id}")
        assert words in answer.json()["detail"]
        assert stack.http.get(f"/api/metrics/crawls/{crawl_id}").status_code == 404


def test_nothing_is_adopted_while_firecrawl_does_not_answer(stack: Stack, firecrawl: FakeFirecrawl):
    job = firecrawl.start("crawl", {"url": start_url(firecrawl)})
    firecrawl.outage = "refused"
    assert stack.http.post(f"/api/crawls/{job.id}/reconcile").status_code == 503
    assert stack.http.get(f"/api/metrics/crawls/{job.id}").status_code == 404


async def test_agents_scrape_batches_and_have_failed_pages_fetched_again(
    stack: Stack, firecrawl: FakeFirecrawl
):
    urls = [outcome.url for outcome in firecrawl.site.outcomes[:2]]
    lost = f"{urls[0]}/lost"
    firecrawl.site = Site([*firecrawl.site.outcomes, Failure(lost, "SCRAPE_TIMEOUT", "It timed out.")])
    async with over_http(stack.url) as client:
        text, batch = await answered(client, "batch_scrape", urls=[*urls, lost, "no url"], wait=True)
        assert text.startswith("Left out, because it cannot be scraped: no url\nCrawl ")
        assert batch["invalid_urls"] == ["no url"]
        assert (batch["crawl"]["pages_indexed"], batch["crawl"]["pages_failed"]) == (2, 1)
        firecrawl.site = Site.of(1, lost)
        crawl_id = batch["crawl"]["crawl_id"]
        _, left = await answered(client, "retry_failed_pages", crawl_id=crawl_id)
        assert (left["still_failed"], left["rescrape_crawl_id"]) == (1, None)
        text, again = await answered(client, "retry_failed_pages", crawl_id=crawl_id, rescrape=True)
        rescrape_id = again["rescrape_crawl_id"]
        assert text.splitlines() == [
            f"1 page is fetched again. Follow that: crawlscope profile {rescrape_id} --follow",
            f"Or with crawl_status and crawl_id={rescrape_id}.",
        ]
        _, fetched = await answered(client, "crawl_status", crawl_id=rescrape_id, wait=True)
    assert (again["rescraped"], again["still_failed"], fetched["pages_indexed"]) == (1, 0, 1)


def test_nothing_can_be_cancelled_that_nobody_runs(stack: Stack, firecrawl: FakeFirecrawl):
    assert stack.http.post("/api/crawls/nobody/cancel").status_code == 404
    firecrawl.hold_after = 1
    crawl_id = started(stack, {"url": start_url(firecrawl)})
    firecrawl.expire(crawl_id)
    answer = stack.http.post(f"/api/crawls/{crawl_id}/cancel")
    assert answer.status_code == 422
    assert "Firecrawl knows no such crawl" in answer.json()["detail"]


def test_lost_deliveries_are_brought_by_themselves(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.site = Site(
        [*firecrawl.site.outcomes, Failure(f"{start_url(firecrawl)}/gone", "SCRAPE_TIMEOUT", "It timed out.")]
    )
    firecrawl.drops = lambda event: True
    crawl_id = started(stack, {"url": start_url(firecrawl)})
    crawl = eventually(
        lambda: stack.crawl(crawl_id), lambda it: it["sealed"] and it["total_pages"] == PAGES + 1, 60
    )
    assert (crawl["status"], crawl["pages_indexed"], crawl["pages_failed"]) == ("completed", PAGES, 1)
    assert crawl["e2e_duration_ms"] > 0
    assert crawl["reconciliation"]["added"] == PAGES


def refusing(status: int) -> Callable[[FakeFirecrawl], None]:
    return lambda firecrawl: firecrawl.refuse_starts(status, "Not for you today")


def out(kind: Any) -> Callable[[FakeFirecrawl], None]:
    def turn(firecrawl: FakeFirecrawl) -> None:
        firecrawl.outage = kind

    return turn


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (refusing(400), 422, "Not for you today"),
        (refusing(402), 502, "Not for you today"),
        (refusing(403), 502, "Not for you today"),
        (refusing(429), 503, "Not for you today"),
        (refusing(500), 503, "may have begun all the same"),
        (out("refused"), 503, "cannot be reached"),
        (lambda firecrawl: firecrawl.answer_html(), 503, "something else than a JSON object"),
    ],
    ids=["400", "402", "403", "429", "500", "unreachable", "html"],
)
def test_what_firecrawl_does_not_do_leaves_nothing_behind(
    stack: Stack, firecrawl: FakeFirecrawl, spoil: Callable[[FakeFirecrawl], None], status: int, words: str
):
    before, jobs = listed(stack), len(firecrawl.jobs)
    spoil(firecrawl)
    answer = stack.start_crawl({"url": start_url(firecrawl)})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert (int(answer.headers.get("retry-after", 0)) > 0) == (status == 503)
    assert (listed(stack), len(firecrawl.jobs)) == (before, jobs)


def test_an_answer_that_got_lost_is_said_so_and_the_crawl_is_found_by_its_events(
    stack: Stack, firecrawl: FakeFirecrawl
):
    jobs = set(firecrawl.jobs)
    firecrawl.lose_answers(1)
    answer = stack.start_crawl({"url": start_url(firecrawl)})
    assert answer.status_code == 503
    assert "look for it among the crawls" in answer.json()["detail"]
    [crawl_id] = firecrawl.jobs.keys() - jobs
    firecrawl.wait_until_delivered(crawl_id)
    crawl = ended(stack, crawl_id)
    assert (crawl["pages_indexed"], crawl["crawl_url"]) == (PAGES, start_url(firecrawl))
    assert crawl["e2e_duration_ms"] > 0


def test_a_wrong_key_is_reported_without_the_key(stack: Stack, firecrawl: FakeFirecrawl):
    before, firecrawl.api_key = listed(stack), "another key"
    try:
        answer = stack.start_crawl({"url": start_url(firecrawl)})
    finally:
        firecrawl.api_key = KEY
    assert answer.status_code == 502
    assert "CRAWLSCOPE_FIRECRAWL_API_KEY" in answer.json()["detail"]
    assert KEY not in answer.text
    assert KEY not in log_of(stack.data_dir).read_text()
    assert listed(stack) == before


def test_a_complaint_that_repeats_the_webhook_does_not_reveal_the_secret(
    stack: Stack, firecrawl: FakeFirecrawl
):
    firecrawl.answer_with(Reply(500, {"error": f"cannot store X-API-Secret {API_SECRET}"}))
    answer = stack.start_crawl({"url": start_url(firecrawl)})
    assert answer.status_code == 503
    assert "cannot store" in answer.text
    assert API_SECRET not in answer.text
    assert API_SECRET not in log_of(stack.data_dir).read_text()


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({}, "either `url`"),
        ({"url": "https://a.example/", "urls": ["https://a.example/"]}, "either `url`"),
        ({"urls": []}, "1 to 10,000"),
        ({"urls": ["nothing", "of use"]}, "none of the urls"),
        ({"urls": ["https://a.example/"], "engine": "builtin"}, "scrapes no batches"),
        ({"urls": ["https://a.example/"], "limit": 3}, "limit"),
        ({"url": "a.example"}, "give a full URL"),
        ({"url": "https://a.example/", "scrape_options": {"webhook": "http://b/"}}, "webhook"),
        ({"url": "https://a.example/", "crawl_options": {"url": "http://b/"}}, "url"),
        ({"url": "https://a.example/", "scrape_options": {"x": "y" * 70_000}}, "more than the 65,536"),
        ({"url": "https://a.example/", "scrape_options": {"formats": ["links"]}}, "markdown"),
        ({"url": "https://a.example/", "engine": "builtin", "scrape_options": {"x": 1}}, "Firecrawl's"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_firecrawl_hears_of_it(
    stack: Stack, firecrawl: FakeFirecrawl, order: dict[str, Any], words: str
):
    answer = stack.start_crawl(order)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert not [request for request in firecrawl.requests if request.starts]


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://localhost:8080/", "http://192.168.0.1/x", "http://[::1]/"),
        *("http://redis:6379/", "http://metadata.google.internal/", "http://2130706433/", "http://127.1/"),
        *("http://127.0.0.1\\@a.example/", "http://%31%32%37.0.0.1/"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_over_http_nobody_has_private_addresses_crawled(
    stack: Stack, firecrawl: FakeFirecrawl, url: str, many: bool
):
    order = {"urls": ["https://a.example/", url]} if many else {"url": url}
    answer = stack.http.post("/api/crawls", json=order)
    assert answer.status_code == 422, answer.text
    assert "may not be crawled" in answer.json()["detail"]
    assert not [request for request in firecrawl.requests if request.starts]


def test_who_is_on_this_machine_may_have_them_crawled(stack: Stack, firecrawl: FakeFirecrawl):
    assert stack.start_crawl({"url": "http://127.0.0.1:9/"}).status_code == 202


def command(stack: Stack, firecrawl: FakeFirecrawl, *arguments: str) -> Any:
    return crawlscope(
        stack.data_dir, *arguments, FIRECRAWL_URL=firecrawl.url, API_SECRET=API_SECRET, PORT="0"
    )


def test_the_command_follows_such_a_crawl_until_it_is_searchable(stack: Stack, firecrawl: FakeFirecrawl):
    ended = command(
        stack,
        firecrawl,
        *("crawl", start_url(firecrawl), "--engine", "firecrawl", "--json"),
        *("--scrape-options", '{"waitFor": 5}'),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    crawl = json.loads(ended.stdout)
    assert (crawl["status"], crawl["pages_indexed"], crawl["pages_pending"]) == ("completed", PAGES, 0)
    assert order_of(firecrawl)["scrapeOptions"] == {"waitFor": 5}


def test_the_command_scrapes_several_urls_and_prints_their_profile(stack: Stack, firecrawl: FakeFirecrawl):
    urls = [outcome.url for outcome in firecrawl.site.outcomes[:2]]
    ended = command(stack, firecrawl, "crawl", *urls)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2: 2 indexed" in ended.stdout


def test_the_command_cancels(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.hold_after = 1
    begun = command(stack, firecrawl, "crawl", start_url(firecrawl), "--no-wait")
    assert begun.returncode == 0, begun.stderr
    [crawl_id] = begun.stdout.split()
    ended = command(stack, firecrawl, "cancel", crawl_id)
    assert (ended.returncode, ended.stdout[:9]) == (0, "Cancelled")
    again = command(stack, firecrawl, "cancel", crawl_id, "--json")
    assert json.loads(again.stdout) == {"crawl_id": crawl_id, "cancelled": False}


def test_the_command_says_in_one_line_why_firecrawl_refused(stack: Stack, firecrawl: FakeFirecrawl):
    firecrawl.refuse_starts(402, "Insufficient credits")
    ended = command(stack, firecrawl, "crawl", start_url(firecrawl))
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "Insufficient credits" in line


@pytest.mark.slow
def test_a_firecrawl_that_signs_gets_in_without_the_api_secret(embedder: FakeEmbeddingServer, tmp_path: Path):
    """The service's public address is another host's, as far as its name shows."""
    with FakeFirecrawl(Site.of(3), secret=RECORDED_HMAC_SECRET) as firecrawl:
        port = str(free_port())
        settings = settings_for(
            firecrawl,
            embedder,
            FIRECRAWL_WEBHOOK_SECRET=RECORDED_HMAC_SECRET,
            RECONCILE_AFTER_SECONDS="300",
            PORT=port,
            PUBLIC_URL=f"http://0.0.0.0:{port}/",
        )
        with running_stack(tmp_path / "data", **settings) as stack:
            crawl_id = started(stack, {"url": "https://docs.example/"})
            crawl = ended(stack, crawl_id)
            assert (crawl["status"], crawl["pages_indexed"]) == ("completed", 3)
            webhook = order_of(firecrawl)["webhook"]
            assert webhook["url"] == f"http://0.0.0.0:{port}/api/webhook/firecrawl"
            assert webhook["headers"] == {}
            assert all(each.status == 202 for each in firecrawl.deliveries)
