"""The verdict on an open crawl, by the evidence."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crawlscope.core.vocabulary import Completeness, VerdictName
from crawlscope.crawls.repository import start_crawl
from crawlscope.crawls.requests import crawl_request
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.insights.verdict import Asked, Evidence, PartOutage, judge
from crawlscope.processes.worker.circuit import Outages
from tests.support.producing import attempt, deliver, deliver_pages, index_pages, queued

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def seconds_ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def evidence(**known: Any) -> Evidence:
    nothing: dict[str, Any] = {
        "now": NOW,
        "completeness": Completeness.OPEN,
        "last_fact_at": seconds_ago(5),
        "last_settled_at": None,
        "queued": 0,
        "indexing": 0,
        "oldest_queued_at": None,
        "oldest_started_at": None,
        "newest_started_at": None,
        "others_settled_at": None,
    }
    return Evidence(**{**nothing, **known})


WAITING = {"queued": 3, "oldest_queued_at": seconds_ago(600)}
AT_WORK = {"indexing": 1, "oldest_started_at": seconds_ago(600), "newest_started_at": seconds_ago(600)}
GOES_ON = Asked(running_at=seconds_ago(20))
EMBEDDER = PartOutage("embedder", seconds_ago(300), "connection refused")


@pytest.mark.parametrize(
    ("known", "name", "stage"),
    [
        ({**WAITING, "last_settled_at": seconds_ago(2)}, "advancing", None),
        ({**WAITING, **AT_WORK, "newest_started_at": seconds_ago(3)}, "advancing", None),
        ({"queued": 1, "oldest_queued_at": seconds_ago(1)}, "advancing", None),
        ({**WAITING, "others_settled_at": seconds_ago(1)}, "starved", None),
        ({**WAITING, "others_settled_at": seconds_ago(500)}, "stalled", "queue"),
        ({**WAITING, "last_settled_at": seconds_ago(500)}, "stalled", "queue"),
        ({**WAITING, **AT_WORK}, "stalled", "indexing"),
        ({**WAITING, "outages": [EMBEDDER]}, "stalled", "embedding"),
        (
            {**WAITING, "outages": [EMBEDDER], "last_settled_at": seconds_ago(301)},
            "stalled",
            "embedding",
        ),
        ({**WAITING, "outages": [EMBEDDER], "last_settled_at": seconds_ago(2)}, "advancing", None),
        ({**WAITING, "outages": [PartOutage("index", NOW, "gone")]}, "stalled", "qdrant"),
        ({}, "waiting for Firecrawl", None),
        ({"last_fact_at": seconds_ago(301)}, "drained", None),
        (
            {**WAITING, "completeness": Completeness.AS_DELIVERED, "others_settled_at": seconds_ago(1)},
            "starved",
            None,
        ),
        ({"builtin": True}, "waiting for the crawler", None),
        ({"builtin": True, "crawler_asked_at": seconds_ago(2)}, "waiting for the crawler", None),
        ({"builtin": True, "crawler_asked_at": seconds_ago(400)}, "waiting for the crawler", None),
        (
            {"builtin": True, "crawler_asked_at": seconds_ago(2), "crawls_in_progress": 4},
            "waiting for the crawler",
            None,
        ),
        ({"builtin": True, "crawler_asked_at": seconds_ago(20), "crawls_in_progress": 4}, "starved", None),
        ({"builtin": True, "last_fact_at": seconds_ago(301)}, "drained", None),
        ({"last_fact_at": seconds_ago(301), "asked": GOES_ON}, "waiting for Firecrawl", None),
        ({"completeness": Completeness.UNCHECKED}, "comparing with Firecrawl", None),
        ({"completeness": Completeness.INCOMPLETE}, "incomplete", None),
        ({"completeness": Completeness.FORGOTTEN}, "forgotten by Firecrawl", None),
    ],
)
def test_evidence_and_verdict(known: dict[str, Any], name: str, stage: str | None) -> None:
    verdict = judge(evidence(**known))
    assert (verdict.verdict, verdict.stage) == (name, stage)
    assert verdict.since <= NOW
    assert verdict.reason


def test_the_unavailable_part_is_named_with_its_error() -> None:
    verdict = judge(evidence(**WAITING, outages=[EMBEDDER]))
    assert "embedder" in verdict.reason
    assert "connection refused" in verdict.reason
    assert verdict.since == seconds_ago(300)


async def test_the_life_of_a_crawl_in_verdicts(database: Database) -> None:
    insights = Insights(database)

    async def verdict() -> str | None:
        crawl = await insights.crawl("crawl-1")
        assert crawl.sealed == (crawl.verdict is None)
        return crawl.verdict.verdict if crawl.verdict else None

    await deliver(database, "crawl-1", "crawl.started")
    assert await verdict() == VerdictName.WAITING_FOR_FIRECRAWL
    await deliver_pages(database, "crawl-1", "https://a.example/1", "https://a.example/2")
    assert await verdict() == VerdictName.ADVANCING
    [first, _] = await queued(database, "crawl-1")
    await attempt(database, first)
    assert await verdict() == VerdictName.ADVANCING
    await deliver(database, "crawl-1", "crawl.completed")
    await index_pages(database, "crawl-1")
    assert await verdict() == VerdictName.ADVANCING
    await Outages(database, "worker-1").note("index", "no answer")
    crawl = await insights.crawl("crawl-1")
    assert crawl.verdict is not None
    assert (crawl.verdict.verdict, crawl.verdict.stage) == (VerdictName.STALLED, "qdrant")
    assert "no answer" in crawl.verdict.reason


async def test_a_late_page_unseals_a_crawl_until_it_is_settled(database: Database) -> None:
    insights = Insights(database)
    await deliver(database, "crawl-1", "crawl.started")
    await deliver_pages(database, "crawl-1", "https://a.example/1")
    await deliver(database, "crawl-1", "crawl.completed")
    await index_pages(database, "crawl-1")
    sealed = await insights.crawl("crawl-1")
    assert (sealed.sealed, sealed.verdict) == (True, None)
    await deliver_pages(database, "crawl-1", "https://a.example/2")
    unsealed = await insights.crawl("crawl-1")
    assert (unsealed.sealed, unsealed.searchable_at, unsealed.time_to_searchable_ms) == (False, None, None)
    await index_pages(database, "crawl-1")
    again = await insights.crawl("crawl-1")
    assert again.sealed
    assert again.searchable_at is not None
    assert sealed.searchable_at is not None
    assert again.searchable_at > sealed.searchable_at


async def test_a_crawl_lists_the_facts_that_no_event_brought(database: Database) -> None:
    insights = Insights(database)
    await deliver_pages(database, "pages-only", "https://a.example/1")
    assert (await insights.crawl("pages-only")).lacks == ["started", "initiated_at", "end"]
    await deliver(database, "end-only", "crawl.completed")
    assert (await insights.crawl("end-only")).lacks == ["started", "initiated_at", "url", "pages"]


def test_a_crawl_behind_others_says_how_many_they_are() -> None:
    asked = {"builtin": True, "crawler_asked_at": seconds_ago(30)}
    behind = judge(evidence(**asked, crawls_in_progress=1))
    assert behind.awaits == "its turn: the crawler is busy with 1 other crawl"
    assert behind.reason == "the crawler was asked for it 30 s ago, and is busy with 1 other crawl"
    alone = judge(evidence(**asked))
    assert alone.awaits == "the crawler to begin"
    assert alone.reason.endswith("has not begun: does a `crawlscope worker` run?")


def test_pages_that_firecrawl_scraped_but_did_not_deliver_are_counted() -> None:
    asked = Asked(running_at=seconds_ago(3), completed=12, total=30)
    silent = {"last_fact_at": seconds_ago(15), "asked": asked}
    words = judge(evidence(**silent)).reason
    assert words.endswith(
        "12 of 30 pages scraped, 12 of them not delivered: does Firecrawl reach CRAWLSCOPE_PUBLIC_URL?"
    )
    assert judge(evidence(**silent, received=12)).reason.endswith("12 of 30 pages scraped")
    just_now = {**silent, "last_fact_at": seconds_ago(2)}
    assert judge(evidence(**just_now, received=11)).reason.endswith("12 of 30 pages scraped")


async def test_a_crawl_that_no_crawler_takes_is_distinguished_from_a_new_request(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = crawl_request("https://docs.example/", 5)
    crawl_id = await database.run(lambda connection: start_crawl(connection, order))
    crawl = await Insights(database).crawl(crawl_id)
    assert (crawl.awaits, crawl.pages_expected) == ("the crawler to finish", None)
    monkeypatch.setattr("crawlscope.insights.verdict.BEGINS_WITHIN", timedelta(0))
    crawl = await Insights(database).crawl(crawl_id)
    assert crawl.verdict is not None
    assert (crawl.verdict.verdict, crawl.awaits) == ("waiting for the crawler", "the crawler to begin")
    assert re.match(r"the crawler was asked for it \d+ s ago and has not begun", crawl.verdict.reason)
