"""The session in the database always agrees with the facts, in any order of arrival."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import join, select

from crawlscope.core.vocabulary import PageState
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient
from crawlscope.models import CrawlSession, Page, PageAttempt
from crawlscope.pages.contents import CONTENTS, TEXT, WITH_BODIES
from crawlscope.pages.delivered import markdown_of
from crawlscope.pages.retry import retry_pages
from crawlscope.sessions.recount import recount
from crawlscope.sessions.repository import delete_sessions
from crawlscope.webhooks.acceptance import Acceptance, accept_delivery
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Site
from tests.support.fakes.firecrawl_server import Page as SitePage
from tests.support.producing import fail_pages, index_pages, put_pages_back

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
SHOWN = (
    *("status", "success", "crawl_url", "started_at", "completed_at", "duration_ms", "initiated_at"),
    *("e2e_duration_ms", "total_pages", "pages_indexed", "pages_failed", "pages_pending", "pages_unchanged"),
    *("pages_empty", "pages_cancelled", "failures_without_url", "error_message", "lacks", "extra_metadata"),
)

urls = st.sampled_from([f"https://a.example/{name}" for name in "abcd"])
metadata = st.sampled_from([{}, {"url": "https://a.example"}, {"initiated_at": "2026-01-31T11:59:00Z"}])


def page_event(url: str, outcome: str) -> dict[str, Any]:
    document: dict[str, Any] = {"metadata": {"sourceURL": url}}
    event: dict[str, Any] = {"type": "crawl.page", "success": outcome != "failed", "data": [document]}
    if outcome == "failed":
        event["error"] = "The page timed out."
    elif outcome == "missing":
        document["metadata"]["statusCode"] = 404
    elif outcome == "nameless":
        event |= {"success": False, "data": [], "error": {"code": "SCRAPE_ALL_ENGINES_FAILED"}}
    else:
        document["markdown"] = f"# {outcome}"
    return event


events = st.lists(
    st.one_of(
        st.builds(lambda it: {"type": "crawl.started", "metadata": it}, metadata),
        st.builds(
            page_event,
            urls,
            st.sampled_from(["first text", "second text", "failed", "missing", "nameless"]),
        ),
        st.builds(
            lambda success, it: {"type": "crawl.completed", "success": success, "metadata": it},
            st.booleans(),
            metadata,
        ),
        st.just({"type": "crawl.cancelled"}),
        st.builds(lambda error: {"type": "crawl.failed", "error": error}, st.sampled_from(["a", "b"])),
    ),
    min_size=1,
    max_size=6,
)
orders = st.randoms(use_true_random=False)


async def deliver_at(database: Database, crawl_id: str, event: dict[str, Any], second: int) -> dict[str, Any]:
    return await accept_delivery(
        database, body_at(crawl_id, event, second), START + timedelta(seconds=second)
    )


def body_at(crawl_id: str, event: dict[str, Any], second: int) -> bytes:
    """An event at another second is another delivery."""
    return json.dumps({"id": crawl_id, "webhookId": f"{crawl_id} {second}", **event}).encode()


async def shown(database: Database, crawl_id: str) -> dict[str, Any]:
    async with database.transaction() as connection:
        row = await connection.execute(
            select(*CrawlSession.__table__.columns).where(CrawlSession.crawl_id == crawl_id)
        )
        session = row.mappings().one()
        pages = await connection.execute(
            select(Page.source_url, Page.state, Page.error_code).where(Page.crawl_id == crawl_id)
        )
        return {name: session[name] for name in SHOWN} | {"pages": {row[0]: tuple(row)[1:] for row in pages}}


async def assert_recount_agrees(database: Database, crawl_id: str) -> None:
    assert await database.run(lambda connection: recount(connection, crawl_id)) == {}


def in_database(url: str, work: Callable[[Database], Awaitable[None]]) -> None:
    async def run() -> None:
        database = Database.open(url, pool_size=5)
        try:
            await work(database)
        finally:
            await database.close()

    asyncio.run(run())


lenient = settings(
    max_examples=16,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_order_and_repetition_of_deliveries_change_nothing(database_url: str) -> None:
    @lenient
    @given(events, orders, st.lists(st.integers(0, 5), max_size=3))
    def holds(events: list[dict[str, Any]], random: Any, repeated: list[int]) -> None:
        timed = list(enumerate(events))
        again = timed + [timed[number % len(timed)] for number in repeated]
        random.shuffle(again)

        async def compare(database: Database) -> None:
            straight, mixed = str(uuid4()), str(uuid4())
            for second, event in timed:
                await deliver_at(database, straight, event, second)
            for second, event in again:
                await deliver_at(database, mixed, event, second)
            for crawl_id in (straight, mixed):
                await index_pages(database, crawl_id)
                await assert_recount_agrees(database, crawl_id)
            assert await shown(database, mixed) == await shown(database, straight)

        in_database(database_url, compare)

    holds()


def test_deliveries_that_share_a_transaction_behave_as_if_one_came_after_the_other(database_url: str) -> None:
    @lenient
    @given(events, events, st.lists(st.integers(0, 11), max_size=3), st.booleans())
    def holds(
        first: list[dict[str, Any]], second: list[dict[str, Any]], repeated: list[int], indexed: bool
    ) -> None:
        timed = [(number % 2, event) for number, event in enumerate([*first, *second])]
        sent = list(enumerate(timed)) + [
            (number, timed[number]) for number in repeated if number < len(timed)
        ]

        async def compare(database: Database) -> None:
            names = {mode: (str(uuid4()), str(uuid4())) for mode in ("alone", "together")}
            acceptance = Acceptance(database)
            together, before = [], sent[:2] if indexed else []
            for second, (crawl, event) in before:
                for crawls in names.values():
                    await deliver_at(database, crawls[crawl], event, second)
            for crawls in names.values():
                for crawl_id in crawls:
                    await index_pages(database, crawl_id)
            alone = [
                await deliver_at(database, names["alone"][crawl], event, second)
                for second, (crawl, event) in sent
            ]
            for second, (crawl, event) in sent:
                body = body_at(names["together"][crawl], event, second)
                together.append(acceptance.accept(body, START + timedelta(seconds=second)))
            answers = await asyncio.gather(*together)
            assert list(map(without_ids, answers)) == list(map(without_ids, alone))
            for crawl_id, other in zip(*names.values(), strict=True):
                if crawl_id in {answer["crawl_id"] for answer in alone}:
                    assert await shown(database, other) == await shown(database, crawl_id)
                    assert await contents(database, other) == await contents(database, crawl_id)
                    await assert_recount_agrees(database, other)

        in_database(database_url, compare)

    holds()


def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("job_ids", "crawl_id")}


async def contents(database: Database, crawl_id: str) -> list[Any]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            select(Page.source_url, Page.revision, *TEXT)
            .select_from(join(Page, WITH_BODIES, CONTENTS.c.page_id == Page.id, isouter=True))
            .where(Page.crawl_id == crawl_id)
            .order_by(Page.source_url)
        )
        return [(row["source_url"], row["revision"], markdown_of(row)) for row in rows.mappings()]


def test_recount_agrees_after_any_actions_of_workers_and_operators(database_url: str) -> None:
    steps = st.lists(
        st.sampled_from(["deliver", "index", "empty", "unchanged", "fail", "put back", "retry"]), max_size=8
    )

    @lenient
    @given(events, steps)
    def holds(events: list[dict[str, Any]], steps: list[str]) -> None:
        async def live(database: Database) -> None:
            crawl_id, ahead = str(uuid4()), list(enumerate(events))
            await deliver_at(database, crawl_id, ahead[0][1], 0)
            for step in [*steps, *["deliver"] * len(ahead), "index"]:
                await take_step(database, crawl_id, step, ahead)
                await assert_recount_agrees(database, crawl_id)
            await assert_every_millisecond_has_a_name(database, crawl_id)

        in_database(database_url, live)

    holds()


async def take_step(database: Database, crawl_id: str, step: str, ahead: list[Any]) -> None:
    match step:
        case "deliver" if ahead:
            second, event = ahead.pop()
            await deliver_at(database, crawl_id, event, second)
        case "index" | "empty" | "unchanged":
            states = {"index": PageState.INDEXED, "empty": PageState.EMPTY, "unchanged": PageState.UNCHANGED}
            await index_pages(database, crawl_id, states[step])
        case "fail":
            await fail_pages(database, crawl_id, "internal_error", "it went wrong")
        case "put back":
            await put_pages_back(database, crawl_id, "embedder_unavailable", "no answer")
        case "retry":
            await database.run(lambda connection: retry_pages(connection, crawl_id))


async def assert_every_millisecond_has_a_name(database: Database, crawl_id: str) -> None:
    async with database.transaction() as connection:
        attempts = await connection.execute(
            select(PageAttempt.stages, PageAttempt.total_ms, PageAttempt.unaccounted_ms)
            .join(Page, Page.id == PageAttempt.page_id)
            .where(Page.crawl_id == crawl_id)
        )
        for attempt in attempts:
            assert sum(attempt.stages.values()) + attempt.unaccounted_ms == attempt.total_ms


def test_reconciliation_restores_lost_pages(database_url: str) -> None:
    """With any part of the deliveries lost, the crawl ends as it does with all of them."""
    site = Site(
        [
            *[SitePage(f"https://a.example/{number}") for number in range(4)],
            SitePage("https://a.example/missing", status_code=404),
            Failure("https://a.example/broken"),
        ]
    )
    with FakeFirecrawl(site) as firecrawl:
        firecrawl.drops = lambda event: True
        job = firecrawl.start("crawl", {"url": "https://a.example/", "webhook": {"url": "http://nobody"}})
        bodies = [delivery.event.body for delivery in firecrawl.wait_until_delivered(job.id)]
        assert len(bodies) == 8

        @settings(lenient, max_examples=10)
        @given(st.sets(st.integers(0, len(bodies) - 1), min_size=1), orders, st.booleans())
        def holds(arriving: set[int], random: Any, late: bool) -> None:
            async def compare(database: Database) -> None:
                await forget(database, job.id)
                arrived = [bodies[number] for number in sorted(arriving)]
                random.shuffle(arrived)
                for body in arrived:
                    await accept_delivery(database, json.dumps(body).encode(), datetime.now(UTC))
                async with FirecrawlClient(firecrawl.url) as client:
                    await Reconciler(database, client).reconcile(job.id)
                await index_pages(database, job.id)
                if late:
                    for body in bodies:
                        await accept_delivery(database, json.dumps(body).encode(), datetime.now(UTC))
                    await index_pages(database, job.id)
                crawl = await shown(database, job.id)
                assert (crawl["status"], crawl["total_pages"], crawl["pages_indexed"]) == ("completed", 6, 4)
                assert (crawl["pages_failed"], crawl["pages_pending"]) == (2, 0)
                assert crawl["completed_at"] is not None
                await assert_recount_agrees(database, job.id)

            in_database(database_url, compare)

        holds()


async def forget(database: Database, crawl_id: str) -> None:
    """As if the crawl had no facts."""
    async with database.transaction() as connection:
        await delete_sessions(connection, [crawl_id])
