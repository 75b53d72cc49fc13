"""The SQL of pages, their contents and their attempts."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.sessions.store import counts_of, move_counts
from crawlscope.timing import TimingContext
from crawlscope.timing.store import Measurement, record_operations

ATTEMPTS = models.table_of(models.PageAttempt)
CONTENTS = models.table_of(models.PageContent)
PAGES = models.table_of(models.Page)

LOCK_ORDER = PAGES.c.source_url.collate("C")
"""Who locks several pages of a crawl takes them in the order in which Python sorts their URLs."""
NOW = func.clock_timestamp()
WAIT_MS = func.greatest(0, func.extract("epoch", PAGES.c.started_at - PAGES.c.queued_at) * 1000)
_OF_AN_OUTCOME = (
    *("started_at", "settled_at", "queue_wait_ms", "total_ms", "chunks"),
    *("error_code", "error", "error_detail"),
)
"""Columns that say how a page ended; a page that waits again has none of it."""


async def lock_page(connection: AsyncConnection, page_id: int) -> Row[Any] | None:
    locked = await connection.execute(
        select(*PAGES.c).where(PAGES.c.id == page_id).with_for_update(key_share=True)
    )
    return locked.one_or_none()


async def queue_page(
    connection: AsyncConnection, page_id: int, revision: int, alone: bool = False, **values: Any
) -> int:
    """Gives the page a job and takes back what an earlier outcome wrote; `values` are further columns."""
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


async def keep_markdown(connection: AsyncConnection, page_id: int, markdown: str) -> None:
    """What was made of a page that was delivered as HTML."""
    await connection.execute(update(CONTENTS).where(CONTENTS.c.page_id == page_id).values(markdown=markdown))


async def write_outcome(
    connection: AsyncConnection,
    page_id: int,
    state: PageState,
    error_code: str | None = None,
    error: str | None = None,
    at: datetime | None = None,
    **values: Any,
) -> datetime:
    """Settles the page, now or `at` another time, `values` being further columns; returns when that was."""
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(state=state, settled_at=at or NOW, error_code=error_code, error=error, **values)
        .returning(PAGES.c.settled_at)
    )
    settled_at: datetime = settled.scalar_one()
    return settled_at


WORKER_LOST = "worker_lost"
WORKER_LOST_WORDS = "the worker died during this attempt"
SUPERSEDED = "superseded"
_GOES_ON = or_(
    ATTEMPTS.c.outcome.is_(None), and_(ATTEMPTS.c.outcome == SUPERSEDED, ATTEMPTS.c.total_ms.is_(None))
)


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
    html: str
    """In place of Markdown, where none was delivered."""
    queued_at: datetime | None
    past: Mapping[str, PastTries] = field(default_factory=dict)
    """Tries of this revision that were put back, by error code."""


@dataclass(frozen=True)
class Outcome:
    state: PageState
    chunks: int | None = None
    error_code: str | None = None
    error: str | None = None


def worker_name(pid: int) -> str:
    """What attempts and outages call a worker of this host."""
    return f"{socket.gethostname()}:{pid}"


async def claim_page(
    connection: AsyncConnection, page_id: int, revision: int, worker: str, job_id: int | None = None
) -> ClaimedPage | None:
    """Starts an attempt; None where the job is void: the page is settled, replaced, gone or has another."""
    page = await lock_page(connection, page_id)
    if page is None or page.revision != revision or PageState(page.state).settled:
        return None
    if job_id is not None and page.job_id != job_id:
        return None
    past: Mapping[str, PastTries] = {}
    if page.attempts:
        await _supersede_attempts(connection, page)
        await close_lost_attempts(connection, page)
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
    content = (
        await connection.execute(
            select(CONTENTS.c.markdown, CONTENTS.c.html).where(CONTENTS.c.page_id == page_id)
        )
    ).one_or_none()
    return ClaimedPage(
        id=page_id,
        crawl_id=page.crawl_id,
        revision=revision,
        attempt=attempt,
        source_url=page.source_url,
        url=page.url,
        title=page.title,
        language=page.language,
        markdown=content.markdown if content else "",
        html=content.html if content else "",
        queued_at=page.queued_at,
        past=past,
    )


async def still_claimed(connection: AsyncConnection, claim: ClaimedPage) -> bool:
    """Locks the page; false where it was settled, replaced, deleted or claimed anew since it was claimed."""
    page = await lock_page(connection, claim.id)
    if page is None or PageState(page.state).settled:
        return False
    held: bool = (page.revision, page.attempts) == (claim.revision, claim.attempt)
    return held


async def settle_page(
    connection: AsyncConnection,
    claim: ClaimedPage,
    outcome: Outcome,
    measurements: Sequence[Measurement],
) -> None:
    """Writes outcome, attempt, metrics and totals. The page must be locked by `still_claimed`."""
    spent = _spent(measurements)
    settled_at = await write_outcome(
        connection,
        claim.id,
        outcome.state,
        outcome.error_code,
        outcome.error,
        queue_wait_ms=WAIT_MS,
        total_ms=spent["total_ms"],
        stages=spent["stages"],
        chunks=outcome.chunks,
    )
    await _close_attempt(connection, claim, outcome.state, outcome.error_code, outcome.error, **spent)
    await record_operations(connection, measurements, announced=True)
    await move_counts(
        connection,
        claim.crawl_id,
        counts_of(outcome.state) - counts_of(PageState.INDEXING),
        settled_at=settled_at,
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
    await record_operations(connection, measurements, announced=True)


async def abandon(
    connection: AsyncConnection, claim: ClaimedPage, measurements: Sequence[Measurement]
) -> None:
    """Ends an attempt whose page was settled, replaced or deleted meanwhile: only its time is kept.

    That it was the attempt itself which settled the page, an answer that got lost does not tell: one that
    was ended is left as it is.
    """
    if await _close_attempt(connection, claim, SUPERSEDED, None, None, **_spent(measurements)):
        await record_operations(connection, measurements, announced=True)


async def close_lost_attempts(connection: AsyncConnection, page: Row[Any]) -> None:
    """Attempts that nobody ended: their worker died. What is known is when they began and were missed."""
    lost = await connection.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.page_id == page.id, ATTEMPTS.c.outcome.is_(None))
        .values(finished_at=NOW, outcome="lost", error_code=WORKER_LOST, error=WORKER_LOST_WORDS)
        .returning(ATTEMPTS.c.started_at, ATTEMPTS.c.finished_at, ATTEMPTS.c.number)
    )
    await record_operations(
        connection, [lost_work(page, attempt, WORKER_LOST_WORDS) for attempt in lost.all()], announced=True
    )


def lost_work(page: Row[Any], attempt: Any, words: str) -> TimingContext:
    """The operation of an attempt whose worker could not tell of it."""
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


async def _close_attempt(
    connection: AsyncConnection,
    claim: ClaimedPage,
    outcome: str,
    error_code: str | None,
    error: str | None,
    **spent: Any,
) -> bool:
    """False where it was ended before, or is gone with its page."""
    closed = await connection.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.page_id == claim.id, ATTEMPTS.c.number == claim.attempt, _GOES_ON)
        .values(finished_at=NOW, outcome=outcome, error_code=error_code, error=error, **spent)
        .returning(ATTEMPTS.c.id)
    )
    return closed.one_or_none() is not None


async def _supersede_attempts(connection: AsyncConnection, page: Row[Any]) -> None:
    """Attempts at content that was replaced: who makes one may live, and adds its time when it ends."""
    await connection.execute(
        update(ATTEMPTS)
        .where(
            ATTEMPTS.c.page_id == page.id, ATTEMPTS.c.revision < page.revision, ATTEMPTS.c.outcome.is_(None)
        )
        .values(finished_at=NOW, outcome=SUPERSEDED)
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
