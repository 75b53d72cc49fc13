"""Deliveries that share a transaction: each is answered and counted as if it were alone."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

from sqlalchemy import event, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.compression import DamagedBody, compress, decompress
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.indexing.service import IndexingService
from crawlscope.models import CrawlSession, DeletedCrawl, Delivery, OperationMetric, Page
from crawlscope.pages.delivered import markdown_of
from crawlscope.pages.repository import newest_contents
from crawlscope.sessions.changes import lock_session
from crawlscope.sessions.recount import recount
from crawlscope.timing import scope
from crawlscope.timing.telemetry import conventions, meters
from crawlscope.timing.telemetry.meters import Totals
from crawlscope.webhooks.acceptance import MAX_DELIVERIES, Acceptance
from tests.support.polling import eventually, until_one_waits
from tests.support.producing import A, B, C, document, index_pages

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def page(
    crawl_id: str, url: str, webhook_id: str, text: str = "Some words.", **further: Any
) -> dict[str, Any]:
    data = [{**document(url), "markdown": text}]
    return {"type": "crawl.page", "id": crawl_id, "webhookId": webhook_id, "data": data, **further}


async def accept_all(acceptance: Acceptance, events: Sequence[dict[str, Any]]) -> list[Any]:
    """In one transaction, if they are not more than fit into one: all are read before the first is stored."""
    bodies = [json.dumps(each).encode() for each in events]
    times = [NOW + timedelta(seconds=number) for number in range(len(bodies))]
    accepting = [acceptance.accept(body, at) for body, at in zip(bodies, times, strict=True)]
    return await asyncio.gather(*accepting, return_exceptions=True)


async def rows_of(database: Database, model: Any) -> list[Any]:
    async with database.transaction() as connection:
        return list(await connection.execute(select(*model.__table__.columns).order_by(model.__table__.c[0])))


async def test_each_delivery_gets_its_own_answer(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(insert(DeletedCrawl).values(crawl_id="deleted"))
    answers = await accept_all(
        Acceptance(database),
        [
            page("crawl-1", A, "1"),
            page("deleted", A, "2"),
            {"type": "crawl.started", "id": "crawl-2"},
            page("crawl-1", A, "1"),
            {"type": "account.low_credits"},
            {"type": "crawl.page", "id": "crawl-1", "data": [document(B, status_code=404)]},
            {"type": "crawl.completed", "jobId": "crawl-2", "data": [document(C), document(B)]},
        ],
    )
    jobs = [int(job_id) for answer in answers for job_id in answer.get("job_ids", ())]
    assert [answer["status"] for answer in answers] == [
        *("queued", "ignored", "acknowledged", "duplicate", "ignored", "queued", "acknowledged")
    ]
    assert [answer.get("queued_jobs") for answer in answers] == [1, None, None, None, None, 0, 2]
    assert len(set(jobs)) == 3
    assert {row.job_id for row in await rows_of(database, Page) if row.delivered} == set(jobs)
    for crawl_id in ("crawl-1", "crawl-2"):
        assert await database.run(partial(recount, crawl_id=crawl_id)) == {}


async def test_of_one_page_in_several_deliveries_the_last_content_is_indexed(database: Database) -> None:
    texts = ["First.", "Second.", "Second.", "Third."]
    answers = await accept_all(
        Acceptance(database), [page("crawl-1", A, str(number), text) for number, text in enumerate(texts)]
    )
    assert [answer["queued_jobs"] for answer in answers] == [1, 1, 1, 1]
    [row] = await rows_of(database, Page)
    assert (row.state, row.revision, str(row.job_id)) == (PageState.QUEUED, 4, answers[-1]["job_ids"][0])
    async with database.transaction() as connection:
        [content] = await newest_contents(connection, row.document_key, 3)
    assert markdown_of(content) == "Third."
    assert await index_pages(database, "crawl-1") == 1
    assert await database.run(partial(recount, crawl_id="crawl-1")) == {}


async def test_content_beats_a_failure_in_either_order(database: Database) -> None:
    failed = {"success": False, "error": "The page timed out."}
    answers = await accept_all(
        Acceptance(database),
        [
            *({**page("crawl-1", A, "1"), **failed}, page("crawl-1", A, "2")),
            *(page("crawl-1", B, "3"), {**page("crawl-1", B, "4"), **failed}),
        ],
    )
    assert [answer["queued_jobs"] for answer in answers] == [0, 1, 1, 0]
    states = {(row.source_url, row.state, row.error_code) for row in await rows_of(database, Page)}
    assert states == {(A, "queued", None), (B, "queued", None)}
    assert await database.run(partial(recount, crawl_id="crawl-1")) == {}


async def test_a_delivery_that_cannot_be_stored_fails_alone(database: Database) -> None:
    acceptance, bodies = (
        Acceptance(database),
        [json.dumps(page("crawl-1", url, url)).encode() for url in (A, B, C)],
    )
    times = [NOW, NOW.replace(tzinfo=None), NOW]
    good, bad, also_good = await asyncio.gather(
        *[acceptance.accept(body, at) for body, at in zip(bodies, times, strict=True)], return_exceptions=True
    )
    assert isinstance(bad, Exception)
    assert isinstance(good, dict)
    assert isinstance(also_good, dict)
    assert {row.source_url for row in await rows_of(database, Page)} == {A, C}
    assert len(await rows_of(database, Delivery)) == 2
    assert await database.run(partial(recount, crawl_id="crawl-1")) == {}


async def test_each_measurement_belongs_to_its_request(database: Database) -> None:
    acceptance = Acceptance(database)

    async def request(number: int) -> None:
        with scope(request_id=f"request-{number}"):
            await acceptance.accept(json.dumps(page("crawl-1", f"{A}{number}", str(number))).encode(), NOW)

    await asyncio.gather(*[request(number) for number in range(5)])
    measured = await rows_of(database, OperationMetric)
    assert {row.request_id for row in measured} == {f"request-{number}" for number in range(5)}
    assert {(row.operation_type, row.operation_name, row.crawl_id) for row in measured} == {
        ("webhook", "crawl.page", "crawl-1")
    }


async def test_many_deliveries_need_no_more_statements_than_one(database: Database) -> None:
    statements: list[str] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    counts = []
    for many in (1, MAX_DELIVERIES):
        for crawl_id in ("warm", "counted"):
            statements.clear()
            urls = [f"{A}{many}/{number}" for number in range(many)]
            await accept_all(Acceptance(database), [page(f"{crawl_id}-{many}", url, url) for url in urls])
        counts.append(len(statements))
    assert counts[0] == counts[1]
    assert len(await rows_of(database, Page)) == 2 * (1 + MAX_DELIVERIES)


async def test_a_further_page_writes_its_session_once_and_locks_it_last(database: Database) -> None:
    acceptance, statements = Acceptance(database), list[str]()
    await accept_all(acceptance, [page("crawl-1", A, "1")])

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    await accept_all(acceptance, [page("crawl-1", B, "2")])
    writing = ["crawl_sessions" in each and "UPDATE" in each for each in statements]
    assert writing == [False] * (len(statements) - 1) + [True]
    assert await database.run(partial(recount, crawl_id="crawl-1")) == {}

    # A page after the end may change when the crawl ended.
    await accept_all(acceptance, [{"type": "crawl.completed", "id": "crawl-1", "webhookId": "3"}])
    await accept_all(acceptance, [page("crawl-1", C, "4")])
    assert await database.run(partial(recount, crawl_id="crawl-1")) == {}


async def test_two_processes_can_accept_the_same_pages_in_any_order(database: Database) -> None:
    """Each has transactions of its own. Both wait for each other's rows, and neither loses."""
    urls = [f"{A}{number}" for number in range(20)]
    crawls = ("crawl-1", "crawl-2")
    events = [page(crawl_id, url, f"{crawl_id} {url}") for url in urls for crawl_id in crawls]
    for number in range(5):
        changed = [{**each, "webhookId": f"{each['webhookId']} {number}"} for each in events]
        first, second = await asyncio.gather(
            accept_all(Acceptance(database), changed), accept_all(Acceptance(database), changed[::-1])
        )
        assert not [answer for answer in first + second if isinstance(answer, BaseException)]
        statuses = [answer["status"] for answer in first + second]
        assert (statuses.count("queued"), statuses.count("duplicate")) == (len(events), len(events))
    assert len(await rows_of(database, Page)) == len(events)
    for crawl_id in crawls:
        await index_pages(database, crawl_id)
        assert await database.run(partial(recount, crawl_id=crawl_id)) == {}


class SlowToForget:
    """Stands for an index that takes long to remove a crawl."""

    def __init__(self) -> None:
        self.entered, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def forget_crawl(self, _connection: AsyncConnection, _crawl_id: str) -> None:
        self.entered.set()
        await self.may_go_on.wait()


async def test_a_crawl_that_is_being_deleted_delays_no_other(database: Database) -> None:
    acceptance, indexing = Acceptance(database), SlowToForget()
    await accept_all(acceptance, [page("crawl-1", A, "1"), page("crawl-2", A, "2")])
    delete = partial(delete_crawl, crawl_id="crawl-1", indexing=cast("IndexingService", indexing))
    deleting = asyncio.create_task(database.run(delete))
    await indexing.entered.wait()
    waiting = []
    for number in ("3", "4"):
        again = page("crawl-1", A, number, text=f"Other words {number}.")
        waiting.append(asyncio.create_task(accept_all(acceptance, [again])))
        await asyncio.sleep(0.2)
    [answer] = await asyncio.wait_for(accept_all(acceptance, [page("crawl-2", B, "5")]), 60)
    assert answer["status"] == "queued"
    assert not any(each.done() for each in waiting)
    indexing.may_go_on.set()
    await deleting
    await asyncio.gather(*waiting)
    assert {each.crawl_id for each in await rows_of(database, Page)} == {"crawl-2"}


async def test_a_delivery_that_is_stored_at_the_second_try_is_measured_once(database: Database) -> None:
    acceptance, totals = Acceptance(database), Totals()
    await accept_all(acceptance, [{"type": "crawl.started", "id": "crawl-1", "webhookId": "1"}])
    with meters.use(totals):
        async with database.transaction() as busy:  # for longer than a delivery waits at first
            await lock_session(busy, "crawl-1")
            accepting = asyncio.create_task(accept_all(acceptance, [page("crawl-1", A, "2")]))
            await eventually(lambda: bool(acceptance._delayed))
        [answer] = await accepting
    assert answer["status"] == "queued"
    measured = totals.take()[conventions.OPERATIONS, (OperationType.WEBHOOK, conventions.SUCCESS)]
    assert sum(measured.buckets) == 1


async def test_sessions_are_locked_in_order_where_a_settled_page_waits_again(database: Database) -> None:
    acceptance = Acceptance(database)
    await accept_all(acceptance, [page("crawl-1", A, "1"), page("crawl-2", A, "2")])
    await index_pages(database, "crawl-2")
    async with database.transaction() as busy:
        await lock_session(busy, "crawl-1")
        again = [page("crawl-1", B, "3"), page("crawl-2", A, "4", text="Other words.")]
        accepting = asyncio.create_task(accept_all(acceptance, again))
        await until_one_waits(database)
        second = select(CrawlSession.id).where(CrawlSession.crawl_id == "crawl-2")
        await busy.execute(second.with_for_update(nowait=True, key_share=True))
    assert [answer["status"] for answer in await accepting] == ["queued", "queued"]
    for crawl_id in ("crawl-1", "crawl-2"):
        assert await database.run(partial(recount, crawl_id=crawl_id)) == {}


async def test_a_page_never_takes_the_place_of_another_crawls_page(database: Database) -> None:
    """As where a restored backup has rows that its sequence does not know of."""
    acceptance = Acceptance(database)
    await accept_all(acceptance, [page("crawl-1", A, "1")])
    async with database.transaction() as connection:
        await connection.execute(
            text("SELECT setval(pg_get_serial_sequence('webhook.pages', 'id'), 1, false)")
        )
    [error] = await accept_all(acceptance, [page("crawl-2", B, "2")])
    assert "sequence" in str(error)
    assert [each.source_url for each in await rows_of(database, Page)] == [A]
    [answer] = await accept_all(acceptance, [page("crawl-2", B, "2")])
    assert answer["status"] == "queued"


def test_a_damaged_body_is_noticed() -> None:
    stored, unnoticed = compress(json.dumps(page("crawl-1", A, "1", text="Some words. " * 9)).encode()), 0
    for place in range(4, len(stored)):
        damaged = bytearray(stored)
        damaged[place] ^= 0x10
        try:
            unnoticed += decompress(bytes(damaged)) != decompress(stored)
        except DamagedBody:
            continue
    assert not unnoticed
