"""Failed pages are retried; pages that cannot be retried are listed with the reason."""

from typing import Any

import pytest

from tests.api.http.conftest import Serve, Service
from tests.support.fakes.firecrawl_server import FakeFirecrawl, Site
from tests.support.producing import document, fail_pages, index_pages

CRAWL = "crawl-1"
SITE = "https://docs.example/"
RECEIVED, GONE, SLOW, WELL, WAITS = (
    f"{SITE}{name}" for name in ("received", "gone", "slow", "well", "waits")
)
ELSEWHERE = f"{SITE}elsewhere"


async def deliver(service: Service, url: str | None, **further: Any) -> None:
    pages = [] if url is None else [document(url)]
    event = {"type": "crawl.page", "id": CRAWL, "data": pages, **further}
    answer = await service.http.post("/api/webhook/firecrawl", json=event)
    assert answer.status_code == 202


async def failing_at_the_crawler(service: Service, url: str, error: str) -> None:
    await deliver(service, url, success=False, error=error, data=[{"metadata": {"sourceURL": url}}])


async def crawl_with_failures(service: Service) -> None:
    """One page that failed here, two that failed at the crawler, a nameless one, one of each other state."""
    database = service.parts.database
    await deliver(service, WELL)
    await index_pages(database, CRAWL)
    await deliver(service, RECEIVED)
    await fail_pages(database, CRAWL, "embedder_unavailable", "no answer")
    await failing_at_the_crawler(service, GONE, "DNS resolution failed")
    await failing_at_the_crawler(service, SLOW, "Scrape timed out")
    await deliver(service, None, success=False, error="nameless")
    await deliver(service, WAITS)


async def retry(service: Service, **which: Any) -> dict[str, Any]:
    answer = await service.http.post(f"/api/crawls/{CRAWL}/retry", json=which)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def crawl(service: Service, crawl_id: str = CRAWL) -> dict[str, Any]:
    return (await service.http.get(f"/api/metrics/crawls/{crawl_id}")).json()


async def test_what_was_received_is_queued_and_the_rest_is_named(service: Service):
    await crawl_with_failures(service)
    answer = await retry(service)
    pages = {page["url"]: page for page in answer.pop("pages")}
    assert answer == {
        "crawl_id": CRAWL,
        "queued": 1,
        "rescraped": 0,
        "rescrape_crawl_id": None,
        "left": {"not_received": 2, "no_url": 1},
    }
    assert set(pages) == {GONE, SLOW}
    assert pages[SLOW]["reason"] == "not_received"
    assert pages[SLOW]["error_code"] == "scrape_timeout"
    assert pages[SLOW]["error"]
    crawled = await crawl(service)
    assert (crawled["pages_pending"], crawled["pages_failed"]) == (2, 2)


async def test_again_nothing_is_queued_twice(service: Service):
    await crawl_with_failures(service)
    await retry(service)
    answer = await retry(service, urls=[RECEIVED])
    assert (answer["queued"], answer["left"]) == (0, {"pending": 1})


async def test_each_given_url_that_is_not_retried_has_a_reason(service: Service):
    await crawl_with_failures(service)
    answer = await retry(service, urls=[RECEIVED, GONE, WELL, WAITS, "https://other.example/", "a\x00b"])
    assert answer["queued"] == 1
    reasons = {page["url"]: page["reason"] for page in answer["pages"]}
    assert reasons == {
        GONE: "not_received",
        WELL: "not_failed",
        WAITS: "pending",
        "https://other.example/": "unknown",
        "a�b": "unknown",
    }
    assert answer["left"] == {"not_received": 1, "not_failed": 1, "pending": 1, "unknown": 2}


async def test_a_page_is_also_found_by_where_it_led(service: Service):
    await deliver(service, None, data=[document(RECEIVED, final_url=ELSEWHERE)])
    await fail_pages(service.parts.database, CRAWL, "embedder_unavailable", "no answer")
    assert (await retry(service, urls=[ELSEWHERE]))["queued"] == 1


async def test_a_page_that_a_cancel_dropped_can_be_asked_for(service: Service):
    words = "This scrape was not completed because the parent crawl or batch scrape was cancelled."
    await failing_at_the_crawler(service, GONE, words)
    assert (await retry(service))["left"] == {}
    assert (await retry(service, urls=[GONE]))["left"] == {"dropped": 1}


async def test_more_pages_than_a_statement_has_parameters_for(service: Service):
    await deliver(service, RECEIVED)
    await fail_pages(service.parts.database, CRAWL, "embedder_unavailable", "no answer")
    urls = [f"https://other.example/{number}" for number in range(40_000)]
    answer = await retry(service, urls=[*urls, RECEIVED])
    assert (answer["queued"], answer["left"], len(answer["pages"])) == (1, {"unknown": 40_000}, 1_000)


async def test_firecrawl_fetches_again_what_was_not_received(serve: Serve):
    with FakeFirecrawl(Site.of(1, SITE)) as firecrawl:
        firecrawl.hold_after = 0
        service = await serve(firecrawl_url=firecrawl.url, allow_private_targets=True)
        await crawl_with_failures(service)
        answer = await retry(service, rescrape=True)
        [order] = [request.body for request in firecrawl.requests if request.starts]
        assert order["urls"] == [GONE, SLOW]
        assert order["webhook"]["metadata"]["retry_of"] == CRAWL
        assert (answer["queued"], answer["rescraped"], answer["pages"]) == (1, 2, [])
        assert answer["left"] == {"no_url": 1}
        again = await crawl(service, answer["rescrape_crawl_id"])
        assert (again["engine"], again["status"], again["crawl_url"]) == ("firecrawl", "in_progress", GONE)
        assert again["extra_metadata"]["retry_of"] == CRAWL
        assert (await crawl(service))["pages_failed"] == 2


async def test_only_the_pages_asked_for_are_fetched_again(serve: Serve):
    with FakeFirecrawl(Site.of(1, SITE)) as firecrawl:
        firecrawl.hold_after = 0
        service = await serve(firecrawl_url=firecrawl.url, allow_private_targets=True)
        await crawl_with_failures(service)
        answer = await retry(service, rescrape=True, urls=[SLOW, WELL])
        assert (answer["queued"], answer["rescraped"], answer["left"]) == (0, 1, {"not_failed": 1})
        asked = len(firecrawl.requests)
        answer = await retry(service, rescrape=True, urls=[WELL, RECEIVED])
        assert (answer["queued"], answer["rescrape_crawl_id"]) == (1, None)
        assert len(firecrawl.requests) == asked


@pytest.mark.parametrize(("outage", "status"), [("refused", 503), (None, 422)])
async def test_where_firecrawl_cannot_be_asked_nothing_is_done(serve: Serve, outage: Any, status: int):
    with FakeFirecrawl(Site.of(1, SITE)) as firecrawl:
        firecrawl.outage = outage
        service = await serve(firecrawl_url=firecrawl.url if outage else None, allow_private_targets=True)
        await crawl_with_failures(service)
        answer = await service.http.post(f"/api/crawls/{CRAWL}/retry", json={"rescrape": True})
        assert answer.status_code == status
        assert "Firecrawl" in answer.json()["detail"]
        assert (await crawl(service))["pages_failed"] == 3


async def test_private_addresses_are_not_fetched_again_for_just_anybody(serve: Serve):
    with FakeFirecrawl(Site.of(1, SITE)) as firecrawl:
        service = await serve(firecrawl_url=firecrawl.url)
        await failing_at_the_crawler(service, "http://127.0.0.1:9/", "connection refused")
        answer = await service.http.post(f"/api/crawls/{CRAWL}/retry", json={"rescrape": True})
        assert answer.status_code == 422
        assert "may not be crawled" in answer.json()["detail"]
        answer = await service.local.post(f"/api/crawls/{CRAWL}/retry", json={"rescrape": True})
        assert (answer.status_code, answer.json()["rescraped"]) == (202, 1)


async def test_what_cannot_be_is_refused(service: Service):
    answer = await service.http.post("/api/crawls/nobody/retry", json={"rescrape": True})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Crawl not found: nobody")
    answer = await service.http.post(f"/api/crawls/{CRAWL}/retry", json={"again": True})
    assert answer.status_code == 422
