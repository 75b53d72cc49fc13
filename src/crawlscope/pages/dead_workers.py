"""Pages whose worker died with them: a crash where its supervisor saw it, else it costs them nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import drop_job
from crawlscope.pages.attempts import close_lost_attempts, lost_work
from crawlscope.pages.page_rows import ATTEMPTS, WAIT_MS, lock_page, queue_page, write_outcome
from crawlscope.sessions.counts import counts_of
from crawlscope.sessions.store import move_counts
from crawlscope.timing.store import record_operations

WORKER_CRASHED = "worker_crashed"
CRASHES_ALLOWED = 3
CLOCKS_DIFFER = timedelta(seconds=60)
"""Attempts begin by the database's clock, workers by that of their host."""


@dataclass(frozen=True)
class WorkerDeath:
    """A worker that died before the eyes of its supervisor."""

    worker: str
    began_at: datetime
    died_at: datetime
    how: str


async def pages_of_dead(connection: AsyncConnection, death: WorkerDeath) -> Sequence[int]:
    """Pages whose attempts died with the worker and are not known to have crashed."""
    found = select(ATTEMPTS.c.page_id).where(*_died_with(death)).distinct()
    return (await connection.scalars(found)).all()


async def record_crash(connection: AsyncConnection, page_id: int, death: WorkerDeath) -> PageState | None:
    """Notes that the page's worker died with it. The page is queued anew, to be worked on alone, or given up.

    Returns its new state; None where nothing follows: it is settled, replaced or with another worker.
    """
    page = await lock_page(connection, page_id)
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
    await queue_page(connection, page_id, page.revision, alone=True)
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
    page = await lock_page(connection, page_id)
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
    await close_lost_attempts(connection, page)
    crashes, _ = await _count_crashes(connection, page)
    await drop_job(connection, page.job_id)
    await queue_page(connection, page_id, page.revision, alone=crashes > 0)
    return True


def _died_with(death: WorkerDeath) -> tuple[ColumnElement[bool], ...]:
    """Process ids come again, but not soon: an attempt from long before this process is of another one."""
    unknown = or_(ATTEMPTS.c.finished_at.is_(None), ATTEMPTS.c.outcome == "lost")
    return ATTEMPTS.c.worker == death.worker, ATTEMPTS.c.started_at >= death.began_at - CLOCKS_DIFFER, unknown


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
            await record_operations(
                connection, [lost_work(page, ended.one(), _crashed_words(death))], announced=True
            )
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
    settled_at = await write_outcome(
        connection, page.id, PageState.FAILED, code, words, queue_wait_ms=WAIT_MS
    )
    change = counts_of(PageState.FAILED) - counts_of(PageState(page.state))
    await move_counts(connection, page.crawl_id, change, settled_at=settled_at)


def _crashed_words(death: WorkerDeath) -> str:
    return f"the worker died during this attempt: {death.how}"


def _crash_words(crashes: int, death: WorkerDeath) -> str:
    return f"set aside: {crashes} workers died while they worked on this page, the last one: {death.how}"
