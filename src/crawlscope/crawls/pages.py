"""The SQL of pages: delivered, claimed by a worker, settled, put back. Each step locks the page's row first
and moves its crawl's counts last, so that a page counts once whatever is delivered, retried or killed."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.crawls.page_state import Arrival
from crawlscope.database.queue import INDEX_PAGE, drop_job, enqueue
from crawlscope.database.values import hash_key
from crawlscope.sessions.counts import Counts, counts_of
from crawlscope.sessions.store import find_last_settled, keep_action, move_counts
from crawlscope.timing import TimingContext
from crawlscope.timing.store import Measurement, record_operations
from crawlscope.vocabulary import OperationType, PageState

ATTEMPTS = models.table_of(models.PageAttempt)
CONTENTS = models.table_of(models.PageContent)
PAGES = models.table_of(models.Page)


NOW = func.clock_timestamp()
WORKER_LOST = "worker_lost"
WORKER_LOST_WORDS = "the worker died during this attempt"
WORKER_CRASHED = "worker_crashed"
CRASHES_ALLOWED = 3
_OF_AN_OUTCOME = ("started_at", "settled_at", "queue_wait_ms", "total_ms", "chunks", "error_code", "error")
"""Columns that say how a page ended; a page that waits again has none of it."""


@dataclass(frozen=True)
class DeliveredPage:
    """A page as a delivery brings it: with content to index, or failed already."""

    source_url: str
    url: str
    arrival: Arrival
    markdown: str = ""
    title: str | None = None
    language: str | None = None
    status_code: int | None = None
    failure: PageState | None = None
    """`failed` or `cancelled` where there is nothing to index."""
    error_code: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Received:
    """What a delivered page changed: nothing where a better delivery was known already."""

    change: Counts
    job_id: int | None = None
    settled_at: datetime | None = None


@dataclass(frozen=True)
class PastTries:
    """Tries of a page's revision that ended with one error code."""

    count: int = 0
    first_at: datetime | None = None


@dataclass(frozen=True)
class ClaimedPage:
    """A page in the hands of a worker; `revision` tells whether it still is when the worker is done."""

    id: int
    crawl_id: str
    revision: int
    attempt: int
    source_url: str
    url: str
    title: str | None
    language: str | None
    markdown: str
    queued_at: datetime | None
    past: Mapping[str, PastTries] = field(default_factory=dict)
    """Tries of this revision that were put back, by error code."""


@dataclass(frozen=True)
class WorkerDeath:
    """A worker that died before the eyes of its supervisor."""

    worker: str
    began_at: datetime
    died_at: datetime
    how: str


@dataclass(frozen=True)
class Outcome:
    state: PageState
    chunks: int | None = None
    error_code: str | None = None
    error: str | None = None


def worker_name(pid: int) -> str:
    """What attempts and outages call a worker of this host."""
    return f"{socket.gethostname()}:{pid}"


async def receive_page(connection: AsyncConnection, crawl_id: str, page: DeliveredPage) -> Received:
    """Takes a delivered page in and queues it, unless it failed already or lost against another delivery."""
    before = None
    known = await _insert(connection, crawl_id, page)
    if known is None:
        known = await _lock_by_source(connection, crawl_id, page.source_url)
        before = PageState(known.state)
        if await _brings_nothing(connection, known, page):
            return Received(Counts())
    if page.failure:
        return await _settle_failed(connection, known, page, before)
    revision = known.revision + 1 if before else known.revision
    await _keep_content(connection, known.id, page.markdown)
    job_id = await _queue(connection, known.id, revision, **_delivered_values(page))
    if before and before.settled:
        await find_last_settled(connection, crawl_id)
    return Received(counts_of(PageState.QUEUED) - counts_of(before), job_id=job_id)


async def claim_page(
    connection: AsyncConnection, page_id: int, revision: int, worker: str, job_id: int | None = None
) -> ClaimedPage | None:
    """Starts an attempt; None where the job is void: the page is settled, replaced, gone or has another."""
    page = await _lock(connection, page_id)
    if page is None or page.revision != revision or PageState(page.state).settled:
        return None
    if job_id is not None and page.job_id != job_id:
        return None
    past: Mapping[str, PastTries] = {}
    if page.attempts:
        await _close_lost_attempts(connection, page)
        past = await _past_tries(connection, page)
    attempt = page.attempts + 1
    started = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(state=PageState.INDEXING, attempts=attempt, started_at=NOW)
        .returning(PAGES.c.started_at)
    )
    await connection.execute(
        insert(ATTEMPTS).values(
            page_id=page_id,
            number=attempt,
            revision=revision,
            worker=worker,
            queued_at=page.queued_at,
            started_at=started.scalar_one(),
        )
    )
    markdown = await connection.scalar(select(CONTENTS.c.markdown).where(CONTENTS.c.page_id == page_id))
    return ClaimedPage(
        id=page_id,
        crawl_id=page.crawl_id,
        revision=revision,
        attempt=attempt,
        source_url=page.source_url,
        url=page.url,
        title=page.title,
        language=page.language,
        markdown=markdown or "",
        queued_at=page.queued_at,
        past=past,
    )


async def still_claimed(connection: AsyncConnection, claim: ClaimedPage) -> bool:
    """Locks the page; false where it was settled, replaced or deleted since it was claimed."""
    page = await _lock(connection, claim.id)
    return page is not None and page.revision == claim.revision and not PageState(page.state).settled


async def settle_page(
    connection: AsyncConnection,
    claim: ClaimedPage,
    outcome: Outcome,
    measurements: Sequence[Measurement],
) -> None:
    """Writes outcome, attempt, metrics and totals. The page must be locked by `still_claimed`."""
    spent = _spent(measurements)
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == claim.id)
        .values(
            state=outcome.state,
            settled_at=NOW,
            queue_wait_ms=_wait_ms(PAGES.c.started_at, PAGES.c.queued_at),
            total_ms=spent["total_ms"],
            stages=spent["stages"],
            chunks=outcome.chunks,
            error_code=outcome.error_code,
            error=outcome.error,
        )
        .returning(PAGES.c.settled_at)
    )
    await _close_attempt(connection, claim, outcome.state, outcome.error_code, outcome.error, **spent)
    await record_operations(connection, measurements, announced=True)
    await move_counts(
        connection,
        claim.crawl_id,
        counts_of(outcome.state) - counts_of(PageState.INDEXING),
        settled_at=settled.scalar_one(),
    )


async def put_back(
    connection: AsyncConnection,
    claim: ClaimedPage,
    error_code: str,
    error: str,
    measurements: Sequence[Measurement],
) -> None:
    """Ends an attempt that another one will follow: the page waits again."""
    if not await still_claimed(connection, claim):
        await abandon(connection, claim, measurements)
        return
    await connection.execute(
        update(PAGES).where(PAGES.c.id == claim.id).values(state=PageState.QUEUED, queued_at=NOW)
    )
    spent = _spent(measurements)
    await _close_attempt(connection, claim, "retried", error_code, error, **spent)
    await record_operations(connection, measurements)


async def abandon(
    connection: AsyncConnection, claim: ClaimedPage, measurements: Sequence[Measurement]
) -> None:
    """Ends an attempt whose page was settled, replaced or deleted meanwhile: only its time is kept."""
    await _close_attempt(connection, claim, "superseded", None, None, **_spent(measurements))
    await record_operations(connection, measurements)


async def pages_of_dead(connection: AsyncConnection, death: WorkerDeath) -> Sequence[int]:
    """Pages whose attempts died with the worker and are not known to have crashed."""
    found = select(ATTEMPTS.c.page_id).where(*_died_with(death)).distinct()
    return (await connection.scalars(found)).all()


async def record_crash(connection: AsyncConnection, page_id: int, death: WorkerDeath) -> PageState | None:
    """Notes that the page's worker died with it. The page is queued anew, to be worked on alone, or given up.

    Returns its new state; None where nothing follows: it is settled, replaced or with another worker.
    """
    page = await _lock(connection, page_id)
    if page is None or not await _crash_attempts(connection, page, death):
        return None
    if PageState(page.state).settled:
        return None
    crashes, in_hand = await _count_crashes(connection, page)
    if crashes >= CRASHES_ALLOWED:
        await drop_job(connection, page.job_id)
        await _give_up(connection, page, WORKER_CRASHED, _crash_words(crashes, death))
        return PageState.FAILED
    if in_hand:
        return None
    await drop_job(connection, page.job_id)
    await _queue(connection, page_id, page.revision, alone=True)
    return PageState.QUEUED


async def pages_in_hand(connection: AsyncConnection) -> Sequence[tuple[int, str, datetime]]:
    """Page, worker and begin of each attempt that is under way."""
    found = await connection.execute(
        select(ATTEMPTS.c.page_id, ATTEMPTS.c.worker, ATTEMPTS.c.started_at).where(
            ATTEMPTS.c.finished_at.is_(None)
        )
    )
    return [(row.page_id, row.worker, row.started_at) for row in found]


async def requeue_lost(connection: AsyncConnection, page_id: int, worker: str) -> bool:
    """Queues a page anew whose worker is gone and nobody saw how; it loses no try by that."""
    page = await _lock(connection, page_id)
    if page is None:
        return False
    held = select(ATTEMPTS.c.id).where(
        ATTEMPTS.c.page_id == page_id,
        ATTEMPTS.c.revision == page.revision,
        ATTEMPTS.c.worker == worker,
        ATTEMPTS.c.outcome.is_(None),
    )
    if page.state != PageState.INDEXING or (await connection.execute(held)).first() is None:
        return False
    await _close_lost_attempts(connection, page)
    crashes, _ = await _count_crashes(connection, page)
    await drop_job(connection, page.job_id)
    await _queue(connection, page_id, page.revision, alone=crashes > 0)
    return True


async def requeue_failed(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None
) -> int:
    """Queues the failed pages whose content is known, all or those of `urls`; returns how many."""
    failed = select(PAGES.c.id, PAGES.c.revision).where(
        PAGES.c.crawl_id == crawl_id, PAGES.c.state == PageState.FAILED, PAGES.c.delivered
    )
    if urls is not None:
        failed = failed.where(PAGES.c.source_key.in_([hash_key(url) for url in urls]))
    rows = (await connection.execute(failed.order_by(PAGES.c.id).with_for_update())).all()
    for row in rows:
        await _queue(connection, row.id, row.revision + 1)
    if rows:
        await keep_action(connection, crawl_id, datetime.now(UTC), "retry", pages=len(rows))
        change = counts_of(PageState.QUEUED) - counts_of(PageState.FAILED)
        await move_counts(connection, crawl_id, change * len(rows))
        await find_last_settled(connection, crawl_id)
    return len(rows)


async def _lock(connection: AsyncConnection, page_id: int) -> Row[Any] | None:
    locked = await connection.execute(
        select(*PAGES.c).where(PAGES.c.id == page_id).with_for_update(key_share=True)
    )
    return locked.one_or_none()


async def _insert(connection: AsyncConnection, crawl_id: str, page: DeliveredPage) -> Row[Any] | None:
    """The new row; None where the crawl has this page already."""
    inserted = await connection.execute(
        upsert(PAGES)
        .values(
            crawl_id=crawl_id,
            source_key=hash_key(page.source_url),
            source_url=page.source_url,
            state=PageState.QUEUED,
            **_delivered_values(page),
        )
        .on_conflict_do_nothing(index_elements=["crawl_id", "source_key"])
        .returning(*PAGES.c)
    )
    return inserted.one_or_none()


async def _lock_by_source(connection: AsyncConnection, crawl_id: str, source_url: str) -> Row[Any]:
    locked = await connection.execute(
        select(*PAGES.c)
        .where(PAGES.c.crawl_id == crawl_id, PAGES.c.source_key == hash_key(source_url))
        .with_for_update(key_share=True)
    )
    return locked.one()


async def _brings_nothing(connection: AsyncConnection, known: Row[Any], page: DeliveredPage) -> bool:
    """Whether what is known wins: a better delivery, or the same page that came another way or again."""
    arrival = Arrival(known.delivered, not known.pulled, known.received_at, known.webhook_id)
    if replace(page.arrival, usable=arrival.usable) == arrival:
        return await _is_same(connection, known, page)
    if page.arrival < arrival:
        return True
    both_pushed = page.arrival.pushed and arrival.pushed
    return not both_pushed and not page.failure and await _is_same(connection, known, page)


async def _is_same(connection: AsyncConnection, known: Row[Any], page: DeliveredPage) -> bool:
    if page.failure:
        return (known.state, known.error_code, known.error) == (page.failure, page.error_code, page.error)
    described = (True, page.url, page.title, page.language)
    if (known.delivered, known.url, known.title, known.language) != described:
        return False
    content = select(CONTENTS.c.markdown == page.markdown).where(CONTENTS.c.page_id == known.id)
    return bool(await connection.scalar(content))


def _delivered_values(page: DeliveredPage) -> dict[str, Any]:
    return {
        "url": page.url,
        "document_key": hash_key(page.url),
        "delivered": page.failure is None,
        "pulled": not page.arrival.pushed,
        "received_at": page.arrival.received_at,
        "webhook_id": page.arrival.webhook_id,
        "status_code": page.status_code,
        "title": page.title,
        "language": page.language,
    }


async def _settle_failed(
    connection: AsyncConnection, known: Row[Any], page: DeliveredPage, before: PageState | None
) -> Received:
    assert page.failure is not None
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == known.id)
        .values(
            **_delivered_values(page),
            state=page.failure,
            error_code=page.error_code,
            error=page.error,
            settled_at=NOW,
        )
        .returning(PAGES.c.settled_at)
    )
    return Received(counts_of(page.failure) - counts_of(before), settled_at=settled.scalar_one())


async def _keep_content(connection: AsyncConnection, page_id: int, markdown: str) -> None:
    await connection.execute(
        upsert(CONTENTS)
        .values(page_id=page_id, markdown=markdown)
        .on_conflict_do_update(index_elements=["page_id"], set_={"markdown": markdown})
    )


async def _queue(
    connection: AsyncConnection, page_id: int, revision: int, alone: bool = False, **values: Any
) -> int:
    order = {"page_id": page_id, "revision": revision} | ({"alone": True} if alone else {})
    job_id = await enqueue(connection, INDEX_PAGE, order)
    await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            **values,
            state=PageState.QUEUED,
            revision=revision,
            job_id=job_id,
            queued_at=NOW,
            **dict.fromkeys(_OF_AN_OUTCOME),
            stages={},
        )
    )
    return job_id


async def _close_attempt(
    connection: AsyncConnection,
    claim: ClaimedPage,
    outcome: str,
    error_code: str | None,
    error: str | None,
    **spent: Any,
) -> None:
    await connection.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.page_id == claim.id, ATTEMPTS.c.number == claim.attempt)
        .values(finished_at=NOW, outcome=outcome, error_code=error_code, error=error, **spent)
    )


async def _close_lost_attempts(connection: AsyncConnection, page: Row[Any]) -> None:
    """Attempts that nobody ended: their worker died. What is known is when they began and were missed."""
    lost = await connection.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.page_id == page.id, ATTEMPTS.c.outcome.is_(None))
        .values(finished_at=NOW, outcome="lost", error_code=WORKER_LOST, error=WORKER_LOST_WORDS)
        .returning(ATTEMPTS.c.started_at, ATTEMPTS.c.finished_at, ATTEMPTS.c.number)
    )
    await record_operations(
        connection, [_lost_work(page, attempt, WORKER_LOST_WORDS) for attempt in lost.all()]
    )


async def _past_tries(connection: AsyncConnection, page: Row[Any]) -> dict[str, PastTries]:
    counted = await connection.execute(
        select(ATTEMPTS.c.error_code, func.count(), func.min(ATTEMPTS.c.started_at))
        .where(
            ATTEMPTS.c.page_id == page.id,
            ATTEMPTS.c.revision == page.revision,
            ATTEMPTS.c.outcome == "retried",
        )
        .group_by(ATTEMPTS.c.error_code)
    )
    return {code: PastTries(count, first_at) for code, count, first_at in counted}


def _died_with(death: WorkerDeath) -> tuple[ColumnElement[bool], ...]:
    """Process ids come again: an attempt that began before this process is of another one."""
    unknown = or_(ATTEMPTS.c.finished_at.is_(None), ATTEMPTS.c.outcome == "lost")
    return ATTEMPTS.c.worker == death.worker, ATTEMPTS.c.started_at >= death.began_at, unknown


async def _crash_attempts(connection: AsyncConnection, page: Row[Any], death: WorkerDeath) -> bool:
    """Whether one of them is of the page's present revision. Lost ones have their operation already."""
    died = (
        await connection.execute(
            select(*ATTEMPTS.c).where(ATTEMPTS.c.page_id == page.id, *_died_with(death)).with_for_update()
        )
    ).all()
    for attempt in died:
        ended = await connection.execute(
            update(ATTEMPTS)
            .where(ATTEMPTS.c.id == attempt.id)
            .values(
                finished_at=func.greatest(ATTEMPTS.c.started_at, death.died_at),
                outcome="crashed",
                error_code=WORKER_CRASHED,
                error=_crashed_words(death),
            )
            .returning(ATTEMPTS.c.started_at, ATTEMPTS.c.finished_at, ATTEMPTS.c.number)
        )
        if attempt.outcome is None:
            await record_operations(connection, [_lost_work(page, ended.one(), _crashed_words(death))])
    return any(attempt.revision == page.revision for attempt in died)


async def _count_crashes(connection: AsyncConnection, page: Row[Any]) -> tuple[int, int]:
    """Of the present revision: attempts that crashed, and those that are under way."""
    counted = await connection.execute(
        select(
            func.count().filter(ATTEMPTS.c.outcome == "crashed", ATTEMPTS.c.revision == page.revision),
            func.count().filter(ATTEMPTS.c.outcome.is_(None)),
        ).where(ATTEMPTS.c.page_id == page.id)
    )
    crashed, under_way = counted.one()
    return crashed, under_way


async def _give_up(connection: AsyncConnection, page: Row[Any], code: str, words: str) -> None:
    """Fails a page that no worker has in hand."""
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page.id)
        .values(
            state=PageState.FAILED,
            settled_at=NOW,
            queue_wait_ms=_wait_ms(PAGES.c.started_at, PAGES.c.queued_at),
            error_code=code,
            error=words,
        )
        .returning(PAGES.c.settled_at)
    )
    change = counts_of(PageState.FAILED) - counts_of(PageState(page.state))
    await move_counts(connection, page.crawl_id, change, settled_at=settled.scalar_one())


def _crashed_words(death: WorkerDeath) -> str:
    return f"the worker died during this attempt: {death.how}"


def _crash_words(crashes: int, death: WorkerDeath) -> str:
    return f"set aside: {crashes} workers died while they worked on this page, the last one: {death.how}"


def _lost_work(page: Row[Any], attempt: Any, words: str) -> TimingContext:
    return TimingContext.past(
        OperationType.WORKER,
        "index_document",
        began_at=attempt.started_at,
        ended_at=attempt.finished_at,
        error_message=words,
        crawl_id=page.crawl_id,
        job_id=str(page.job_id),
        document_url=page.source_url,
        metadata={"attempt": attempt.number},
    )


def _spent(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Milliseconds of an attempt: in all, per stage, and what no stage accounts for."""
    stages: dict[str, float] = {}
    total = 0.0
    for each in measurements:
        if each.operation_type == OperationType.WORKER:
            total += each.duration_ms
        else:
            stages[each.operation_type] = stages.get(each.operation_type, 0.0) + each.duration_ms
    return {
        "stages": stages,
        "total_ms": total,
        "unaccounted_ms": max(0.0, total - sum(stages.values())),
    }


def _wait_ms(started: Any, queued: Any) -> Any:
    return func.greatest(0, func.extract("epoch", started - queued) * 1000)
