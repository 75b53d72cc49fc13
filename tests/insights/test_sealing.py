"""When a crawl is sealed, and what is said of it until then, and all the same."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crawlscope.api.mcp.searchability import searchability
from crawlscope.api.rendering.outcome import failure
from crawlscope.core.vocabulary import Completeness, CrawlStatus, ReconcileState
from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconciliations import Found
from crawlscope.crawls.repository import start_crawl
from crawlscope.crawls.requests import crawl_request
from crawlscope.database.engine import Database
from crawlscope.insights.progress import is_settled
from crawlscope.insights.schemas import CrawlMetricsResponse
from crawlscope.insights.sealing import UNANSWERED_CHECKS, sealing
from crawlscope.insights.service import Insights
from crawlscope.sessions.fold import StatusAnswer
from crawlscope.sessions.repository import keep_fact
from tests.support.metrics_examples import crawl_report
from tests.support.producing import A, B, deliver, deliver_pages, index_pages, note_settled

END = datetime(2026, 1, 31, 12, tzinfo=UTC)
NEVER_COMPARED = "complete as far as was delivered; not compared with Firecrawl"
NOT_ANSWERED = "complete as far as was delivered; it could not be compared with Firecrawl: Firecrawl is down"
NO_LONGER_KNOWN = "complete as far as was delivered; Firecrawl no longer knows this crawl"


def session(**changes: Any) -> dict[str, Any]:
    return {"completed_at": END, "pages_pending": 0, "engine": None, **changes}


def check(state: ReconcileState, *, settled: bool = True, **changes: Any) -> dict[str, Any]:
    return {
        "state": state,
        "settled": settled,
        "failures": 0,
        "error": None,
        "missing": 0,
        "missing_urls": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("known", "checked", "asks", "completeness", "sealed"),
    [
        ({"completed_at": None}, None, True, Completeness.OPEN, False),
        ({"completed_at": None}, None, False, Completeness.OPEN, False),
        ({}, None, True, Completeness.UNCHECKED, False),
        ({}, check(ReconcileState.RUNNING, settled=False), True, Completeness.UNCHECKED, False),
        ({}, check(ReconcileState.FAILING, settled=False), True, Completeness.UNCHECKED, False),
        ({}, check(ReconcileState.SETTLED, settled=False), True, Completeness.UNCHECKED, False),
        ({}, check(ReconcileState.INCOMPLETE, settled=False), True, Completeness.UNCHECKED, False),
        ({}, check(ReconcileState.SETTLED), True, Completeness.COMPARED, True),
        ({"pages_pending": 1}, check(ReconcileState.SETTLED), True, Completeness.COMPARED, False),
        ({}, check(ReconcileState.INCOMPLETE), True, Completeness.INCOMPLETE, False),
        ({}, check(ReconcileState.EXPIRED), True, Completeness.FORGOTTEN, True),
        ({}, check(ReconcileState.UNKNOWN), True, Completeness.FORGOTTEN, True),
        ({"completed_at": None}, check(ReconcileState.UNKNOWN), True, Completeness.FORGOTTEN, False),
        ({}, None, False, Completeness.AS_DELIVERED, True),
        ({}, check(ReconcileState.SETTLED), False, Completeness.COMPARED, True),
        ({}, check(ReconcileState.INCOMPLETE), False, Completeness.INCOMPLETE, False),
        ({"pages_pending": 1}, None, False, Completeness.AS_DELIVERED, False),
        ({"engine": "builtin"}, None, True, Completeness.EXACT, True),
        ({"engine": "builtin", "completed_at": None}, None, True, Completeness.OPEN, False),
        ({"engine": "builtin", "pages_pending": 2}, None, False, Completeness.EXACT, False),
        ({"engine": "firecrawl"}, None, True, Completeness.UNCHECKED, False),
    ],
)
def test_what_is_known_and_how_far_that_goes(known, checked, asks, completeness, sealed):
    found = sealing(session(**known), checked, asks)
    assert (found.completeness, found.sealed) == (completeness, sealed)


def test_missing_urls_are_named():
    urls = [f"https://docs.example/{number}" for number in range(5)]
    incomplete = check(ReconcileState.INCOMPLETE, error="too few", missing=7, missing_urls=urls)
    said = sealing(session(), incomplete, asks_firecrawl=True).reservation
    assert said == f"incomplete: too few: {', '.join(urls[:3])} and 4 more"


@pytest.fixture
def asking(database: Database) -> Insights:
    return Insights(database, asks_firecrawl=True)


async def ended_crawl(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.started")
    await deliver_pages(database, "crawl-1", A)
    await deliver(database, "crawl-1", "crawl.completed", at=datetime.now(UTC) - timedelta(seconds=5))
    await index_pages(database, "crawl-1")


async def note(database: Database, found: Found) -> None:
    now = datetime.now(UTC)
    await database.run(lambda connection: reconciliations.note_check(connection, "crawl-1", found, now))


def verdict_of(crawl: CrawlMetricsResponse) -> tuple[bool, str | None, str | None]:
    return crawl.sealed, crawl.verdict.verdict if crawl.verdict else None, crawl.awaits


async def test_an_end_is_not_reported_before_its_comparison(database: Database, asking: Insights) -> None:
    await ended_crawl(database)
    crawl = await asking.crawl("crawl-1")
    assert verdict_of(crawl) == (False, "comparing with Firecrawl", "the comparison with Firecrawl")
    assert crawl.searchable_at is not None, "when its last page settled is known all the same"
    assert searchability(crawl).sentence.startswith(
        "Not safe to search yet: its end is known, and it is being"
    )
    assert not is_settled(crawl)

    await database.run(
        lambda connection: reconciliations.note_failure(connection, "crawl-1", "Firecrawl is down.", 90)
    )
    crawl = await asking.crawl("crawl-1")
    assert crawl.verdict is not None
    assert crawl.verdict.reason.startswith(
        "its end is known, but it could not be compared with Firecrawl yet"
    )
    assert crawl.verdict.reason.endswith(": Firecrawl is down; next attempt in 90 s")

    await note_settled(database, "crawl-1")
    crawl = await asking.crawl("crawl-1")
    assert verdict_of(crawl) == (True, None, None)
    assert (crawl.completeness, crawl.reservation) == (Completeness.COMPARED, None)
    assert searchability(crawl).sentence == "Safe to search."
    assert is_settled(crawl)
    [listed] = (await asking.crawls()).crawls
    assert (listed.sealed, listed.completeness) == (True, Completeness.COMPARED)


async def test_nobody_waits_for_a_firecrawl_that_does_not_answer(
    database: Database, asking: Insights
) -> None:
    await ended_crawl(database)
    for _ in range(UNANSWERED_CHECKS):
        assert not is_settled(await asking.crawl("crawl-1"))
        await database.run(
            lambda connection: reconciliations.note_failure(connection, "crawl-1", "Firecrawl is down", None)
        )
    crawl = await asking.crawl("crawl-1")
    assert verdict_of(crawl) == (False, "comparing with Firecrawl", None)
    assert crawl.reservation == NOT_ANSWERED
    assert is_settled(crawl)
    assert "could not be compared with Firecrawl" in searchability(crawl).sentence
    assert searchability(crawl).final
    assert failure(crawl_report(crawl)) == f"crawl crawl-1 {NOT_ANSWERED}"

    await note_settled(database, "crawl-1")
    assert verdict_of(await asking.crawl("crawl-1")) == (True, None, None)


async def test_without_a_firecrawl_the_reservation_is_named(database: Database) -> None:
    await ended_crawl(database)
    crawl = await Insights(database).crawl("crawl-1")
    assert verdict_of(crawl) == (True, None, None)
    assert (crawl.completeness, crawl.reservation) == (Completeness.AS_DELIVERED, NEVER_COMPARED)
    assert searchability(crawl).sentence == f"Safe to search: {NEVER_COMPARED}."


async def test_a_crawl_that_firecrawl_no_longer_knows(database: Database, asking: Insights) -> None:
    await ended_crawl(database)
    await note(database, Found(ReconcileState.EXPIRED))
    crawl = await asking.crawl("crawl-1")
    assert (crawl.sealed, crawl.reservation) == (True, NO_LONGER_KNOWN)
    assert searchability(crawl).sentence == f"Safe to search: {NO_LONGER_KNOWN}."


async def test_an_incomplete_crawl_is_never_safe_and_waiting_ends(
    database: Database, asking: Insights
) -> None:
    await ended_crawl(database)
    incomplete = Found(ReconcileState.INCOMPLETE, note="1 of 2 is missing", missing=1, missing_urls=[B])
    for number in range(reconciliations.CHECKS_OF_INCOMPLETE):
        crawl = await asking.crawl("crawl-1")
        assert verdict_of(crawl) == (False, "comparing with Firecrawl", "the comparison with Firecrawl"), (
            number
        )
        await note(database, incomplete)
    crawl = await asking.crawl("crawl-1")
    assert verdict_of(crawl) == (False, "incomplete", None)
    assert crawl.reservation == f"incomplete: 1 of 2 is missing: {B}"
    assert crawl.reconciliation is not None
    assert (crawl.reconciliation.missing, crawl.reconciliation.missing_urls) == (1, [B])
    found = searchability(crawl)
    assert (found.safe, found.final) == (False, True)
    assert (
        found.sentence
        == f"Not safe to search: incomplete: 1 of 2 is missing: {B}; 1 page can be found already."
    )
    assert is_settled(crawl)
    await deliver_pages(database, "crawl-1", B)
    await index_pages(database, "crawl-1")
    assert (await asking.crawl("crawl-1")).completeness is Completeness.UNCHECKED


async def test_an_open_crawl_that_firecrawl_does_not_know_is_not_waited_for(
    database: Database, asking: Insights
) -> None:
    await deliver(database, "crawl-1", "crawl.started", at=datetime.now(UTC) - timedelta(minutes=10))
    await note(database, Found(ReconcileState.UNKNOWN))
    crawl = await asking.crawl("crawl-1")
    assert verdict_of(crawl) == (False, "forgotten by Firecrawl", None)
    assert crawl.reservation == "its end is not known; Firecrawl no longer knows this crawl"


async def test_a_new_page_unseals_and_late_news_of_what_is_known_does_not(
    database: Database, asking: Insights
) -> None:
    await ended_crawl(database)
    await note_settled(database, "crawl-1")
    await deliver_pages(database, "crawl-1", A, success=False, error="too late")
    assert (await asking.crawl("crawl-1")).sealed
    await deliver_pages(database, "crawl-1", B)
    await index_pages(database, "crawl-1")
    assert verdict_of(await asking.crawl("crawl-1"))[:2] == (False, "comparing with Firecrawl")
    await note_settled(database, "crawl-1")
    assert (await asking.crawl("crawl-1")).sealed
    await deliver(database, "crawl-1", "crawl.completed")
    assert not (await asking.crawl("crawl-1")).sealed, "a second end: more may have come before it"


async def test_the_first_event_of_an_end_that_was_found_out_changes_nothing(
    database: Database, asking: Insights
) -> None:
    await deliver(database, "crawl-1", "crawl.started")
    await deliver_pages(database, "crawl-1", A)
    await index_pages(database, "crawl-1")
    at = datetime.now(UTC)
    fact = StatusAnswer(at, CrawlStatus.COMPLETED, at, at)
    await database.run(lambda connection: keep_fact(connection, "crawl-1", fact, "told"))
    await note_settled(database, "crawl-1")
    await deliver(database, "crawl-1", "crawl.completed")
    assert (await asking.crawl("crawl-1")).sealed


async def test_the_built_in_crawler_needs_no_comparison(database: Database, asking: Insights) -> None:
    order = crawl_request("https://a.example/", 10)
    crawl_id = await database.run(lambda connection: start_crawl(connection, order))
    assert verdict_of(await asking.crawl(crawl_id)) == (
        False,
        "waiting for the crawler",
        "the crawler to finish",
    )
    await deliver_pages(database, crawl_id, A)
    await index_pages(database, crawl_id)
    await deliver(database, crawl_id, "crawl.completed")
    crawl = await asking.crawl(crawl_id)
    assert (crawl.sealed, crawl.completeness, crawl.reservation) == (True, Completeness.EXACT, None)
    async with database.transaction() as connection:
        await reconciliations.enrol_all(connection)
        assert await reconciliations.claim_due(connection, timedelta(0)) is None


async def test_how_far_firecrawl_is_says_what_is_awaited(database: Database, asking: Insights) -> None:
    await deliver(database, "crawl-1", "crawl.started")
    assert (await asking.crawl("crawl-1")).awaits == "Firecrawl to finish"
    await database.run(
        lambda connection: reconciliations.note_running(connection, "crawl-1", 5, 30, timedelta(0))
    )
    crawl = await asking.crawl("crawl-1")
    assert crawl.verdict is not None
    assert crawl.verdict.verdict == "waiting for Firecrawl"
    assert crawl.verdict.reason.endswith("that it still runs: 5 of 30 pages scraped")
    assert crawl.reconciliation is not None
    assert (crawl.reconciliation.completed, crawl.reconciliation.total) == (5, 30)
    await deliver_pages(database, "crawl-1", A, B)
    assert (await asking.crawl("crawl-1")).awaits == "2 pages to be indexed"
