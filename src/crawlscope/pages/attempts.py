"""The SQL of attempts: a worker claims pages; attempts whose worker died are ended."""

import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.vocabulary import OperationType
from crawlscope.indexing.documents import KnownDocument
from crawlscope.pages.delivered import markdown_of
from crawlscope.pages.repository import NOW, PAGES, UNSETTLED
from crawlscope.sessions.changes import SessionChange
from crawlscope.timing import TimingContext
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters

ATTEMPTS = models.table_of(models.PageAttempt)
WORKER_LOST = "worker_lost"
WORKER_CRASHED = "worker_crashed"
SUPERSEDED = "superseded"
RETRIED = "retried"
MAX_CLOCK_DIFFERENCE = timedelta(seconds=60)
"""The start of an attempt is by the database's clock, the start of a worker by its host's clock."""
_KNOWN_COLUMNS = ("content_hash", "fingerprint", "chunks", "crawl_id", "language", "revision", "error")
LOCK_CLAIMED = text("""
    SELECT id, crawl_id, source_url, url, title, language, state, revision, job_id, attempts, queued_at
    FROM webhook.pages WHERE id = ANY(CAST(:page_ids AS bigint[]))
    ORDER BY crawl_id COLLATE "C", source_url COLLATE "C"
    FOR NO KEY UPDATE
""")
_START_ATTEMPTS = text("""
    WITH claimed AS (
        UPDATE webhook.pages
        SET state = 'indexing', attempts = attempts + 1, started_at = clock_timestamp()
        WHERE id = ANY(CAST(:page_ids AS bigint[]))
        RETURNING id, attempts, revision, queued_at, started_at, document_key
    ), started AS (
        INSERT INTO webhook.page_attempts (page_id, number, revision, worker, queued_at, started_at)
        SELECT id, attempts, revision, :worker, queued_at, started_at FROM claimed
    )
    SELECT claimed.id, claimed.attempts, content.markdown, content.html, delivery.body, content.begins,
        content.ends, extract(epoch FROM claimed.started_at - claimed.queued_at)::float8 AS waited_seconds,
        serving.id AS generation_id, known.content_hash, known.fingerprint, known.chunks, known.crawl_id,
        known.language, known.revision, known.error
    FROM claimed
    LEFT JOIN webhook.index_generations AS serving ON serving.state = 'serving'
    LEFT JOIN webhook.documents AS known
        ON known.generation_id = serving.id AND known.key = claimed.document_key
    LEFT JOIN webhook.page_contents AS content ON content.page_id = claimed.id
    LEFT JOIN webhook.deliveries AS delivery ON delivery.id = content.delivery_id
""")


@dataclass(frozen=True)
class FailedAttempts:
    """Attempts at a page's revision that ended with one error code."""

    count: int = 0
    first_at: datetime | None = None


@dataclass(frozen=True)
class PageJob:
    page_id: int
    revision: int
    job_id: int


@dataclass(frozen=True)
class ClaimedPage:
    """A page that a worker has claimed; `revision` and `attempt` tell whether the claim still holds."""

    id: int
    job_id: int
    crawl_id: str
    revision: int
    attempt: int
    source_url: str
    url: str
    title: str | None
    language: str | None
    markdown: str
    html: str
    """In place of Markdown, if none was delivered."""
    is_lost: bool
    """Whether its text cannot be read any more."""
    queued_at: datetime | None
    generation_id: int | None
    """The index that serves."""
    known: KnownDocument | None
    """That index's record of the document."""
    past: Mapping[str, FailedAttempts] = field(default_factory=dict)
    """Attempts at this revision after which the page was put back, by error code."""


@dataclass(frozen=True)
class WorkerDeath:
    """The death of a worker, as its supervisor saw it."""

    worker: str
    began_at: datetime
    died_at: datetime
    how: str


def worker_name(pid: int) -> str:
    """The name of a worker process of this host in attempts and outages."""
    return f"{socket.gethostname()}:{pid}"


async def claim_pages(
    connection: AsyncConnection, jobs: Sequence[PageJob], worker: str
) -> list[ClaimedPage | None]:
    """Starts attempts. None where a job is void: its page is settled, replaced, deleted or of another job."""
    rows = await connection.execute(LOCK_CLAIMED, {"page_ids": [job.page_id for job in jobs]})
    locked = {row.id: row for row in rows}
    claimable = {
        job.page_id: job
        for job in jobs
        if (page := locked.get(job.page_id))
        and (page.revision, page.job_id) == (job.revision, job.job_id)
        and page.state in UNSETTLED
    }
    past: Mapping[int, Mapping[str, FailedAttempts]] = {}
    if again := [locked[page_id] for page_id in claimable if locked[page_id].attempts]:
        past = await _close_former_attempts(connection, again)
    begun = await connection.execute(_START_ATTEMPTS, {"page_ids": list(claimable), "worker": worker})
    started = {row["id"]: row for row in begun.mappings()}
    waits = [seconds for row in started.values() if (seconds := row["waited_seconds"]) is not None]
    meters.pages_claimed(connection, waits)

    def claimed(job: PageJob) -> ClaimedPage | None:
        if claimable.get(job.page_id) != job:
            return None
        page, attempt = locked[job.page_id], started[job.page_id]
        markdown, has_document = markdown_of(attempt), attempt["revision"] is not None
        return ClaimedPage(
            id=page.id,
            job_id=job.job_id,
            crawl_id=page.crawl_id,
            revision=page.revision,
            attempt=attempt["attempts"],
            source_url=page.source_url,
            url=page.url,
            title=page.title,
            language=page.language,
            markdown=markdown or "",
            html=attempt["html"] or "",
            is_lost=markdown is None,
            queued_at=page.queued_at,
            generation_id=attempt["generation_id"],
            known=KnownDocument(*(attempt[name] for name in _KNOWN_COLUMNS)) if has_document else None,
            past=past.get(page.id, {}),
        )

    return [claimed(job) for job in jobs]


async def _close_former_attempts(
    connection: AsyncConnection, pages: Sequence[Row[Any]]
) -> Mapping[int, Mapping[str, FailedAttempts]]:
    """Returns the failed attempts at the present revisions of the pages. A worker with an attempt at content
    that was replaced may live, and adds the time when it ends."""
    replaced = or_(
        *[and_(ATTEMPTS.c.page_id == page.id, ATTEMPTS.c.revision < page.revision) for page in pages]
    )
    await connection.execute(
        update(ATTEMPTS)
        .where(replaced, ATTEMPTS.c.outcome.is_(None))
        .values(finished_at=NOW, outcome=SUPERSEDED)
    )
    await close_lost_attempts(connection, pages)
    counted = await connection.execute(
        select(ATTEMPTS.c.page_id, ATTEMPTS.c.error_code, func.count(), func.min(ATTEMPTS.c.started_at))
        .join(PAGES, and_(PAGES.c.id == ATTEMPTS.c.page_id, PAGES.c.revision == ATTEMPTS.c.revision))
        .where(ATTEMPTS.c.page_id.in_([page.id for page in pages]), ATTEMPTS.c.outcome == RETRIED)
        .group_by(ATTEMPTS.c.page_id, ATTEMPTS.c.error_code)
    )
    failed: dict[int, dict[str, FailedAttempts]] = defaultdict(dict)
    for page_id, code, count, first_at in counted:
        failed[page_id][code] = FailedAttempts(count, first_at)
    return failed


async def open_attempts(connection: AsyncConnection) -> Sequence[tuple[int, str, datetime]]:
    """Page, worker and begin of each attempt in progress."""
    found = await connection.execute(
        select(ATTEMPTS.c.page_id, ATTEMPTS.c.worker, ATTEMPTS.c.started_at).where(
            ATTEMPTS.c.finished_at.is_(None)
        )
    )
    return [(row.page_id, row.worker, row.started_at) for row in found]


async def has_open_attempt(connection: AsyncConnection, page: Row[Any], worker: str) -> bool:
    """Whether `worker` has an attempt in progress at the page's present revision."""
    held = select(ATTEMPTS.c.id).where(
        ATTEMPTS.c.page_id == page.id,
        ATTEMPTS.c.revision == page.revision,
        ATTEMPTS.c.worker == worker,
        ATTEMPTS.c.outcome.is_(None),
    )
    return (await connection.execute(held)).first() is not None


async def pages_of_dead(connection: AsyncConnection, death: WorkerDeath) -> Sequence[int]:
    """Pages with attempts that died with the worker and are not known to have crashed."""
    found = select(ATTEMPTS.c.page_id).where(_died_with(death)).distinct()
    return (await connection.scalars(found)).all()


async def count_crashes(connection: AsyncConnection, page: Row[Any]) -> tuple[int, int]:
    """Attempts at the page's present revision that crashed, and attempts in progress."""
    counted = await connection.execute(
        select(
            func.count().filter(ATTEMPTS.c.outcome == "crashed", ATTEMPTS.c.revision == page.revision),
            func.count().filter(ATTEMPTS.c.outcome.is_(None)),
        ).where(ATTEMPTS.c.page_id == page.id)
    )
    crashed, in_progress = counted.one()
    return crashed, in_progress


async def close_lost_attempts(connection: AsyncConnection, pages: Sequence[Row[Any]]) -> None:
    """Ends the attempts in progress, whose worker died unseen; they last until now."""
    error = "the worker died during this attempt"
    by_id = {page.id: page for page in pages}
    lost = await connection.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.page_id.in_(by_id), ATTEMPTS.c.outcome.is_(None))
        .values(finished_at=NOW, outcome="lost", error_code=WORKER_LOST, error=error)
        .returning(*ATTEMPTS.c)
    )
    await _record_dead(connection, [(by_id[attempt.page_id], attempt) for attempt in lost.all()], error)


async def close_crashed_attempts(connection: AsyncConnection, page: Row[Any], death: WorkerDeath) -> bool:
    """Ends the page's attempts that died with the worker; whether one is of the page's present revision."""
    error = f"the worker died during this attempt: {death.how}"
    found = select(*ATTEMPTS.c).where(ATTEMPTS.c.page_id == page.id, _died_with(death))
    died = (await connection.execute(found.with_for_update())).all()
    for attempt in died:
        ended = await connection.execute(
            update(ATTEMPTS)
            .where(ATTEMPTS.c.id == attempt.id)
            .values(
                finished_at=func.greatest(ATTEMPTS.c.started_at, death.died_at),
                outcome="crashed",
                error_code=WORKER_CRASHED,
                error=error,
            )
            .returning(*ATTEMPTS.c)
        )
        if attempt.outcome is None:  # a lost one has its operation already
            await _record_dead(connection, [(page, ended.one())], error)
    return any(attempt.revision == page.revision for attempt in died)


def _died_with(death: WorkerDeath) -> ColumnElement[bool]:
    """Process ids come again, but not soon: an attempt from long before this process is of another one."""
    return and_(
        ATTEMPTS.c.worker == death.worker,
        ATTEMPTS.c.started_at >= death.began_at - MAX_CLOCK_DIFFERENCE,
        or_(ATTEMPTS.c.finished_at.is_(None), ATTEMPTS.c.outcome == "lost"),
    )


async def _record_dead(
    connection: AsyncConnection, died: Sequence[tuple[Row[Any], Row[Any]]], error: str
) -> None:
    """Pages with their attempts, of which no stage is known: all of their time is unaccounted."""
    operations = [
        TimingContext.past(
            OperationType.WORKER,
            "index_document",
            began_at=attempt.started_at,
            ended_at=attempt.finished_at,
            error_message=error,
            crawl_id=page.crawl_id,
            job_id=str(page.job_id),
            document_url=page.source_url,
            metadata={"attempt": attempt.number},
        )
        for page, attempt in died
    ]
    changes: dict[str, SessionChange] = defaultdict(SessionChange)
    for (page, attempt), operation in zip(died, operations, strict=True):
        spent_ms = operation.duration_ms
        values = {"total_ms": spent_ms, "unaccounted_ms": spent_ms}
        await connection.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(**values))
        changes[page.crawl_id].measure_attempt(attempt.started_at, attempt.queued_at, spent_ms)
    await write_changes(connection, changes, operations)
