"""Crawls of which deliveries were lost are compared with what Firecrawl's API says of them, and set right."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from crawlscope.core.errors import FirecrawlRefused, FirecrawlUnavailable, NotFoundError
from crawlscope.core.vocabulary import CrawlStatus, PageState, ReconcileState
from crawlscope.crawls.at_firecrawl import start
from crawlscope.crawls.reconcile import Reconciled, Reconciler
from crawlscope.crawls.requests import batch_request
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient, Webhook
from crawlscope.models import CrawlSession, Page, Reconciliation
from crawlscope.sessions.recount import recount
from crawlscope.webhooks.acceptance import accept_delivery
from tests.support.fakes.firecrawl_answers import NEWER_TIMEOUT, newer_failures, older_failures
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Reply, Site
from tests.support.producing import deliver, index_pages
from tests.support.recordings import RECORDINGS, read_deliveries, read_recorded

NAMES = sorted(path.name.removesuffix(".api.json.gz") for path in RECORDINGS.glob("*.api.json.gz"))
BASE = "https://docs.example/"
OLDEST = "v0-crawl-cancel"
"""Its API has neither documents nor an end of a later version's kind."""


@pytest.fixture
def firecrawl() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl() as server:
        yield server


async def reconcile(
    database: Database, firecrawl: FakeFirecrawl, crawl_id: str, patience_seconds: float = 30
) -> Reconciled:
    async with FirecrawlClient(firecrawl.url, patience_seconds=patience_seconds) as client:
        return await Reconciler(database, client).reconcile(crawl_id)


def lines_of(name: str) -> list[str]:
    return [line["body"] for line in read_deliveries(name)]


async def pages_of(database: Database, crawl_id: str) -> dict[str, Any]:
    async with database.transaction() as connection:
        rows = await connection.execute(select(*Page.__table__.columns).where(Page.crawl_id == crawl_id))
        return {row.source_url: row for row in rows}


async def session_of(database: Database, crawl_id: str) -> Any:
    async with database.transaction() as connection:
        found = select(*CrawlSession.__table__.columns).where(CrawlSession.crawl_id == crawl_id)
        return (await connection.execute(found)).one()


async def check_of(database: Database, crawl_id: str) -> Any:
    async with database.transaction() as connection:
        found = select(*Reconciliation.__table__.columns).where(Reconciliation.crawl_id == crawl_id)
        return (await connection.execute(found)).one()


async def assert_counted_right(database: Database, crawl_id: str) -> None:
    assert await database.run(lambda connection: recount(connection, crawl_id)) == {}


@pytest.mark.parametrize("lost", ["nothing", "every second one", "all but the first"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != OLDEST])
async def test_a_recorded_crawl_becomes_what_its_api_says(
    database: Database, firecrawl: FakeFirecrawl, name: str, lost: str
) -> None:
    firecrawl.results_per_page = 1_000  # older servers page by size, and none of these is that large
    crawl_id = firecrawl.load_recorded(name)
    step = {"nothing": 1, "every second one": 2, "all but the first": 1_000_000}[lost]
    for body in lines_of(name)[::step]:
        await accept_delivery(database, body.encode(), datetime.now(UTC))
    before = await pages_of(database, crawl_id)

    reconciled = await reconcile(database, firecrawl, crawl_id)

    answers = read_recorded(name)
    usable = {
        each["metadata"]["sourceURL"]
        for each in answers["documents"]
        if each["metadata"].get("statusCode", 200) < 400
    }
    bad_status = {each["metadata"]["sourceURL"] for each in answers["documents"]} - usable
    errors = answers["errors"][1]["errors"] if answers["errors"][0] == 200 else []
    dropped = {each["url"] for each in errors if "parent crawl" in each["error"]}
    refused = {each["url"] for each in errors} - dropped
    pages = await pages_of(database, crawl_id)
    assert {url for url, page in pages.items() if page.state == PageState.QUEUED} == usable
    assert {url for url, page in pages.items() if page.state == PageState.FAILED} == (bad_status | refused)
    assert {url for url, page in pages.items() if page.state == PageState.CANCELLED} == dropped - usable
    assert all(pages[url].error and pages[url].error_code for url in bad_status | refused | dropped)
    assert reconciled.added == len(usable - before.keys())

    session = await session_of(database, crawl_id)
    assert reconciled.status == session.status == answers["final_status"]["status"]
    if completed_at := answers["final_status"].get("completedAt"):
        failures = [each["timestamp"] for each in errors if each["url"] in refused]
        assert session.completed_at == max(map(datetime.fromisoformat, [completed_at, *failures]))
        assert session.started_at == datetime.fromisoformat(answers["final_status"]["createdAt"])
    await assert_counted_right(database, crawl_id)

    again = await reconcile(database, firecrawl, crawl_id)
    assert (again.added, again.failed, again.cancelled) == (0, 0, 0)
    assert await pages_of(database, crawl_id) == pages


async def test_a_cancelled_crawl_has_no_failed_page_that_was_only_dropped(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    crawl_id = firecrawl.load_recorded("b-v2-crawl-cancel")
    for body in lines_of("b-v2-crawl-cancel"):
        await accept_delivery(database, body.encode(), datetime.now(UTC))
    assert (await session_of(database, crawl_id)).status == CrawlStatus.COMPLETED
    await reconcile(database, firecrawl, crawl_id)
    session = await session_of(database, crawl_id)
    assert (session.status, session.success) == (CrawlStatus.CANCELLED, False)
    assert (session.pages_failed, session.pages_cancelled > 100) == (0, True)


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
@pytest.mark.parametrize("first", ["events", "the API"])
async def test_a_cancel_drops_pages_and_fails_none_but_those_that_failed(
    database: Database, firecrawl: FakeFirecrawl, older: bool, first: str
) -> None:
    """An event of a dropped page may come in words that only the cancel explains."""
    firecrawl.older = older
    failures = older_failures(BASE) if older else newer_failures(BASE)
    firecrawl.site = Site([*failures.values(), *Site.of(20, BASE).outcomes])
    firecrawl.hold_after = 8
    job = firecrawl.start("crawl", {"url": BASE})
    firecrawl.wait_until_scraped(job.id, 8)
    async with FirecrawlClient(firecrawl.url) as client:
        await client.cancel(job.id)
    firecrawl.wait_until_ended(job.id)
    dropped = [page.url for page in firecrawl.site.outcomes[8:]]
    job.missed[-1] = replace(
        job.missed[-1], failure=Failure(dropped[-1], "UNKNOWN_ERROR", "Job was cancelled")
    )
    job.missed = [each for each in job.missed if each.failure.url != dropped[-2]]

    async def events() -> None:
        await deliver(database, job.id, "crawl.started")
        for url in dropped[-2:]:
            await deliver(database, job.id, "crawl.page", [{"metadata": {"sourceURL": url}}], success=False,
                          error="Job was cancelled")  # fmt: skip

    if first == "events":
        await events()
        assert (await session_of(database, job.id)).pages_failed == 2
        await reconcile(database, firecrawl, job.id)
    else:
        await deliver(database, job.id, "crawl.started")
        await reconcile(database, firecrawl, job.id)
        await events()
        await reconcile(database, firecrawl, job.id)
    pages = await pages_of(database, job.id)
    states = {url: (page.state, page.error_code) for url, page in pages.items()}
    assert {states[url] for url in dropped} == {("cancelled", "crawl_cancelled")}
    assert {code: states[failure.url] for code, failure in failures.items()} == {
        code: ("failed", code) for code in failures
    }
    session = await session_of(database, job.id)
    assert (session.status, session.pages_failed, session.pages_cancelled) == ("cancelled", 3, len(dropped))
    await assert_counted_right(database, job.id)


@pytest.mark.parametrize("first", ["event", "API"])
async def test_the_more_precise_source_gives_a_page_its_code(
    database: Database, firecrawl: FakeFirecrawl, first: str
) -> None:
    url = f"{BASE}odd"
    firecrawl.site = Site([Failure(url, "SCRAPE_SITE_ERROR", "It said: net::ERR_EMPTY_RESPONSE")])
    job = firecrawl.start("crawl", {"url": BASE})
    firecrawl.wait_until_ended(job.id)

    async def event() -> None:
        document = {"metadata": {"sourceURL": url}}
        await deliver(database, job.id, "crawl.page", [document], success=False, error="It went wrong")

    await deliver(database, job.id, "crawl.started")
    for step in (event, None) if first == "event" else (None, event):
        await (step() if step else reconcile(database, firecrawl, job.id))
        await assert_counted_right(database, job.id)
    page = (await pages_of(database, job.id))[url]
    assert (page.state, page.error_code, page.delivered) == ("failed", "scrape_site_error", False)


async def test_failures_keep_the_time_that_firecrawl_gives_them(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    firecrawl.site = Site(
        [*Site.of(2, BASE).outcomes, *newer_failures(BASE).values()], robots_blocked=[f"{BASE}private"]
    )
    job = firecrawl.start("crawl", {"url": BASE})
    firecrawl.wait_until_ended(job.id)
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    job.created_at, job.completed_at = began, began + timedelta(seconds=20)
    job.scraped_at = began + timedelta(seconds=0.5)
    times = [began + timedelta(seconds=seconds) for seconds in (5, 10, 15)]
    job.missed = [replace(missed, at=at) for missed, at in zip(job.missed, times, strict=True)]
    for document in job.documents:
        await deliver(database, job.id, "crawl.page", [document], at=began + timedelta(seconds=1))
    await index_pages(database, job.id)
    searchable = (await session_of(database, job.id)).last_settled_at
    await deliver(database, job.id, "crawl.completed", at=began + timedelta(seconds=61))

    await reconcile(database, firecrawl, job.id)

    session = await session_of(database, job.id)
    assert (session.started_at, session.completed_at) == (began, began + timedelta(seconds=15))
    assert session.duration_ms == 15_000
    assert session.last_settled_at == searchable, "a failure that was learned of later is not later"
    pages = await pages_of(database, job.id)
    assert pages[f"{BASE}slow"].settled_at == pages[f"{BASE}slow"].received_at == session.completed_at
    assert pages[f"{BASE}private"].settled_at <= searchable
    assert pages[f"{BASE}slow"].error == "it took longer than Firecrawl waits"
    assert pages[f"{BASE}slow"].error_detail == NEWER_TIMEOUT
    await assert_counted_right(database, job.id)


@pytest.mark.parametrize("ahead_seconds", [-120, 0, 120])
async def test_a_job_of_which_all_pages_failed_lasted_until_the_last_of_them(
    database: Database, firecrawl: FakeFirecrawl, ahead_seconds: int
) -> None:
    """Also where Firecrawl's clock differs from ours."""
    firecrawl.site = Site(list(newer_failures(BASE).values()))
    job = firecrawl.start("crawl", {"url": BASE})
    firecrawl.wait_until_ended(job.id)
    job.created_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ahead_seconds - 60)
    job.missed[-1] = replace(job.missed[-1], at=job.created_at + timedelta(seconds=15.6))
    job.missed[:-1] = [replace(each, at=job.created_at) for each in job.missed[:-1]]
    await deliver(database, job.id, "crawl.completed")
    await reconcile(database, firecrawl, job.id)
    session = await session_of(database, job.id)
    assert (session.duration_ms, session.last_settled_at < datetime.now(UTC)) == (15_600, True)
    await assert_counted_right(database, job.id)


async def test_late_deliveries_of_pages_that_were_fetched_change_nothing(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    crawl_id = firecrawl.load_recorded("v2-batch-slowlink")
    bodies = lines_of("v2-batch-slowlink")
    started = next(body for body in bodies if "started" in body[:200])
    await accept_delivery(database, started.encode(), datetime.now(UTC))
    assert (await reconcile(database, firecrawl, crawl_id)).added == 2
    fetched = await pages_of(database, crawl_id)
    for body in bodies:
        await accept_delivery(database, body.encode(), datetime.now(UTC))
    pages = await pages_of(database, crawl_id)
    assert {url: page.revision for url, page in pages.items()} == dict.fromkeys(fetched, 1)
    assert (await session_of(database, crawl_id)).pages_pending == 2
    await assert_counted_right(database, crawl_id)


async def test_robots_and_failures_are_recorded_with_their_reason(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    firecrawl.site = Site(
        [*Site.of(2).outcomes, Failure("https://docs.example/gone", "SCRAPE_TIMEOUT", "The page timed out.")],
        robots_blocked=["https://docs.example/private"],
    )
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.started")
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.failed) == (2, 2)
    pages = await pages_of(database, job.id)
    assert pages["https://docs.example/gone"].error_code == "scrape_timeout"
    assert pages["https://docs.example/gone"].error == "The page timed out."
    assert pages["https://docs.example/private"].error_code == "robots_blocked"
    await assert_counted_right(database, job.id)


async def test_a_listing_that_repeats_its_first_part_ends_and_says_what_is_missing(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    firecrawl.results_per_page, firecrawl.repeat_first_part = 4, True
    firecrawl.site = Site.of(10)
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.started")
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.state) == (4, ReconcileState.INCOMPLETE)
    assert reconciled.note is not None
    assert "4 of the 10" in reconciled.note
    check = await check_of(database, job.id)
    assert (check.settled, check.missing) == (False, 6), "what came last can lag behind for a moment"
    for _ in range(3):
        await reconcile(database, firecrawl, job.id)
    check = await check_of(database, job.id)
    assert (check.settled, check.state, check.next_check_at) == (True, ReconcileState.INCOMPLETE, None)


async def test_what_a_short_listing_leaves_out_may_have_been_delivered(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    firecrawl.results_per_page, firecrawl.repeat_first_part = 4, True
    firecrawl.site = Site.of(10)
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.page", job.documents[5:], success=True)
    await deliver(database, job.id, "crawl.page", job.documents[4:5], success=True)
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.state, reconciled.note) == (4, ReconcileState.SETTLED, None)


@pytest.mark.parametrize("hands_out", [0, 3])
async def test_documents_that_are_counted_and_not_handed_out_are_missing(
    database: Database, firecrawl: FakeFirecrawl, hands_out: int
) -> None:
    """Also where no further page of results is announced."""
    job = firecrawl.start("crawl", {"url": BASE})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.completed")
    answer = job.status_answer("v2", 0, 100, firecrawl.url)
    short = Reply(200, {**answer, "data": job.documents[:hands_out] or None})
    firecrawl.answer_with(short, applies_to=lambda request: not request.path.endswith("/errors"))
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.state) == (hands_out, ReconcileState.INCOMPLETE)
    assert reconciled.note == f"Firecrawl returns {hands_out} of the 5 documents that it counts"
    check = await check_of(database, job.id)
    assert (check.missing, check.settled) == (5 - hands_out, False)

    firecrawl.answer_normally()
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.state) == (5 - hands_out, ReconcileState.SETTLED)


async def test_urls_of_a_batch_that_brought_nothing_are_named(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    urls = [f"https://docs.example/page-{number}.html" for number in range(5)]
    request = batch_request([*urls, "HTTPS://Docs.Example", "https://docs.example/gone"])
    firecrawl.site = Site([*Site.of(5).outcomes, Failure("https://docs.example/gone")])
    async with FirecrawlClient(firecrawl.url) as client:
        started = await start(database, client, request, Webhook("http://127.0.0.1:9/", {}), "00-1-2-00")
    job = firecrawl.wait_until_ended(started.crawl_id)
    document = next(each for each in job.documents if each["metadata"]["sourceURL"] == "HTTPS://Docs.Example")
    document["metadata"]["sourceURL"] = "https://docs.example/"
    del job.documents[2:4]
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.failed, reconciled.state) == (4, 1, ReconcileState.INCOMPLETE)
    assert reconciled.note == "2 of the 7 URLs of the batch brought neither a page nor an error"
    assert (await check_of(database, job.id)).missing_urls == urls[2:4]


async def test_documents_without_a_url_are_counted_as_missing(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    job.documents[0]["metadata"] = {}
    await deliver(database, job.id, "crawl.completed")
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.added, reconciled.state) == (4, ReconcileState.INCOMPLETE)
    assert reconciled.note == "1 of the documents that Firecrawl returns name no URL"


async def test_a_running_crawl_is_checked_again(database: Database, firecrawl: FakeFirecrawl) -> None:
    firecrawl.site, firecrawl.hold_after = Site.of(5), 3
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_scraped(job.id, 3)
    await deliver(database, job.id, "crawl.started")
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.status, reconciled.added) == (CrawlStatus.IN_PROGRESS, 3)
    check = await check_of(database, job.id)
    assert (check.settled, check.next_check_at > datetime.now(UTC)) == (False, True)
    firecrawl.hold_after = None
    firecrawl.wait_until_ended(job.id)
    reconciled = await reconcile(database, firecrawl, job.id)
    assert (reconciled.status, reconciled.added) == (CrawlStatus.COMPLETED, 2)
    assert (await check_of(database, job.id)).settled


@pytest.mark.parametrize("says", ["Job expired", "Job not found"])
async def test_results_that_expired_settle_the_crawl_as_it_is(
    database: Database, firecrawl: FakeFirecrawl, says: str
) -> None:
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    firecrawl.expire(job.id, says)
    await deliver(database, job.id, "crawl.started", at=datetime.now(UTC) - timedelta(hours=1))
    reconciled = await reconcile(database, firecrawl, job.id)
    assert reconciled.state in (ReconcileState.EXPIRED, ReconcileState.UNKNOWN)
    assert (reconciled.added, reconciled.status) == (0, CrawlStatus.IN_PROGRESS)
    assert reconciled.note
    assert (await check_of(database, job.id)).settled


async def test_an_api_that_limits_rates_is_asked_again_when_it_says(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.started")
    firecrawl.rate_limit(float("inf"), retry_after=3_000)
    with pytest.raises(FirecrawlUnavailable) as raised:
        await reconcile(database, firecrawl, job.id)
    assert raised.value.retry_after == 3_000
    check = await check_of(database, job.id)
    assert (check.state, check.failures, check.settled) == (ReconcileState.FAILING, 1, False)
    assert 2_900 < (check.next_check_at - datetime.now(UTC)).total_seconds() < 3_010


async def test_an_api_that_is_down_or_refuses_loses_nothing(
    database: Database, firecrawl: FakeFirecrawl
) -> None:
    job = firecrawl.start("crawl", {"url": "https://docs.example/"})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.started")
    firecrawl.outage = "refused"
    with pytest.raises(FirecrawlUnavailable):
        await reconcile(database, firecrawl, job.id, patience_seconds=1)
    firecrawl.outage = None
    firecrawl.answer_with(Reply(401, {"success": False, "error": "Unauthorized"}))
    with pytest.raises(FirecrawlRefused):
        await reconcile(database, firecrawl, job.id)
    assert (await check_of(database, job.id)).failures == 2
    firecrawl.answer_normally()
    assert (await reconcile(database, firecrawl, job.id)).added == 5
    assert (await check_of(database, job.id)).failures == 0


async def test_an_unknown_crawl_is_an_error(database: Database, firecrawl: FakeFirecrawl) -> None:
    with pytest.raises(NotFoundError):
        await reconcile(database, firecrawl, "nobody")
