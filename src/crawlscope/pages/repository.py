"""The SQL of pages, their contents and their attempts. Whatever changes a page locks its row first."""

import json
import socket
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Text,
    Uuid,
    and_,
    any_,
    cast,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import arrays, hash_key
from crawlscope.core.vocabulary import QUEUE_WAIT, UNACCOUNTED, OperationType, PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import FINDINGS, FOUND_AT
from crawlscope.pages.causes import precision
from crawlscope.pages.delivered import Arrival, KnownPage
from crawlscope.sessions.repository import SessionChange, lock_sessions
from crawlscope.timing import TimingContext
from crawlscope.timing.context import whole_ticks
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import conventions, meters

ATTEMPTS = models.table_of(models.PageAttempt)
CONTENTS = models.table_of(models.PageContent)
PAGES = models.table_of(models.Page)

UNSETTLED = (PageState.QUEUED, PageState.INDEXING)
WORKER_LOST = "worker_lost"
WORKER_CRASHED = "worker_crashed"
SUPERSEDED = "superseded"
RETRIED = "retried"
MAX_CLOCK_DIFFERENCE = timedelta(seconds=60)
"""Attempts begin by the database's clock, workers by that of their host."""
LOCK_ORDER = (PAGES.c.crawl_id.collate("C"), PAGES.c.source_url.collate("C"))
"""Transactions lock several pages in the order in which Python sorts their crawls and URLs."""
NOW = func.clock_timestamp()
THIS_TRANSACTION = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
QUEUE_WAIT_MS = func.greatest(0, func.extract("epoch", PAGES.c.started_at - PAGES.c.queued_at) * 1000)
_LOCK_PAGES = text("""
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
        RETURNING id, attempts, revision, queued_at, started_at
    ), started AS (
        INSERT INTO webhook.page_attempts (page_id, number, revision, worker, queued_at, started_at)
        SELECT id, attempts, revision, :worker, queued_at, started_at FROM claimed
    )
    SELECT claimed.id, claimed.attempts, content.markdown, content.html,
        extract(epoch FROM claimed.started_at - claimed.queued_at)::float8 AS waited_seconds
    FROM claimed LEFT JOIN webhook.page_contents AS content ON content.page_id = claimed.id
""")
_ENDED_COLUMNS = (
    *("page_id", "number", "state", "outcome", "error_code", "error", "chunks", "content_hash"),
    *("stages", "total_ms", "unaccounted_ms"),
)
_END_ATTEMPTS = text("""
    WITH ended AS (
        SELECT * FROM unnest(
            CAST(:page_id AS bigint[]), CAST(:number AS bigint[]), CAST(:state AS text[]),
            CAST(:outcome AS text[]), CAST(:error_code AS text[]), CAST(:error AS text[]),
            CAST(:chunks AS bigint[]), CAST(:content_hash AS text[]), CAST(:stages AS jsonb[]),
            CAST(:total_ms AS float8[]), CAST(:unaccounted_ms AS float8[])
        ) AS ended (
            page_id, number, state, outcome, error_code, error, chunks, content_hash, stages, total_ms,
            unaccounted_ms
        )
    ), closed AS (
        UPDATE webhook.page_attempts AS attempt
        SET finished_at = clock_timestamp(), outcome = ended.outcome, error_code = ended.error_code,
            error = ended.error, stages = ended.stages, total_ms = ended.total_ms,
            unaccounted_ms = ended.unaccounted_ms
        FROM ended
        WHERE attempt.page_id = ended.page_id AND attempt.number = ended.number
            AND (attempt.outcome IS NULL OR (attempt.outcome = 'superseded' AND attempt.total_ms IS NULL))
        RETURNING attempt.page_id, attempt.number, attempt.started_at, attempt.queued_at
    ), settled AS (
        UPDATE webhook.pages AS page
        SET state = ended.state, settled_at = clock_timestamp(),
            settled_in = CAST(CAST(pg_current_xact_id() AS text) AS bigint), error_code = ended.error_code,
            error = ended.error, chunks = ended.chunks, content_hash = ended.content_hash,
            stages = ended.stages, total_ms = ended.total_ms,
            queue_wait_ms = greatest(0, extract(epoch FROM page.started_at - page.queued_at) * 1000)
        FROM ended
        WHERE page.id = ended.page_id AND ended.state <> 'queued'
        RETURNING page.id, page.settled_at
    ), requeued AS (
        UPDATE webhook.pages AS page SET state = 'queued', queued_at = clock_timestamp()
        FROM ended
        WHERE page.id = ended.page_id AND ended.state = 'queued'
    )
    SELECT ended.page_id, ended.number, settled.settled_at, closed.number IS NOT NULL AS closed,
        closed.started_at, closed.queued_at
    FROM ended
    LEFT JOIN closed ON closed.page_id = ended.page_id AND closed.number = ended.number
    LEFT JOIN settled ON settled.id = ended.page_id
""")
"""The state is NULL for an attempt whose claim is not held."""
_KEEP_MARKDOWN = text("""
    UPDATE webhook.page_contents AS content SET markdown = made.markdown
    FROM unnest(CAST(:page_ids AS bigint[]), CAST(:markdown AS text[])) AS made (page_id, markdown)
    WHERE content.page_id = made.page_id
""")
_OUTCOME_COLUMNS = (
    *("started_at", "settled_at", "settled_in", "queue_wait_ms", "total_ms", "chunks"),
    *("error_code", "error", "error_detail"),
)
"""A page that waits again has none of these."""
LOCK_SOURCES = text("""
    SELECT given.*, page.*,
        CASE WHEN page.id IS NULL THEN nextval(pg_get_serial_sequence('webhook.pages', 'id')) END AS new_id
    FROM unnest(CAST(:crawl_ids AS text[]), CAST(:source_keys AS uuid[])) AS given (crawl_id, source_key)
    LEFT JOIN LATERAL (
        SELECT id, state, revision, delivered, pulled, received_at, webhook_id, url, title, language,
            error_code, error, settled_at
        FROM webhook.pages
        WHERE pages.crawl_id = given.crawl_id AND pages.source_key = given.source_key
        FOR NO KEY UPDATE
    ) AS page ON true
""")
"""Locks one page after the other in the given order, each through the index: a join would read all pages
while the table's statistics are older than a crawl."""
_HASH_CONTENTS = text("""
    SELECT page_id, html <> '' AS is_html,
        sha256(convert_to(CASE WHEN html <> '' THEN html ELSE markdown END, 'UTF8')) AS hash
    FROM webhook.page_contents WHERE page_id = ANY (CAST(:page_ids AS bigint[]))
""")
_DELIVERED_COLUMNS = (
    *("id", "crawl_id", "source_key", "source_url", "url", "document_key", "state", "revision", "delivered"),
    *("pulled", "received_at", "webhook_id", "status_code", "title", "language", "job_id", "error_code"),
    *("error", "error_detail", "settled_at", "markdown", "html"),
)
_STORE_PAGES = text("""
    WITH given AS (
        SELECT * FROM unnest(
            CAST(:id AS bigint[]), CAST(:crawl_id AS text[]), CAST(:source_key AS uuid[]),
            CAST(:source_url AS text[]), CAST(:url AS text[]), CAST(:document_key AS uuid[]),
            CAST(:state AS text[]), CAST(:revision AS int[]), CAST(:delivered AS boolean[]),
            CAST(:pulled AS boolean[]), CAST(:received_at AS timestamptz[]), CAST(:webhook_id AS text[]),
            CAST(:status_code AS int[]), CAST(:title AS text[]), CAST(:language AS text[]),
            CAST(:job_id AS bigint[]), CAST(:error_code AS text[]), CAST(:error AS text[]),
            CAST(:error_detail AS text[]), CAST(:settled_at AS timestamptz[]), CAST(:markdown AS text[]),
            CAST(:html AS text[])
        ) AS given (
            id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
            received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
            settled_at, markdown, html
        )
    ), content AS (
        INSERT INTO webhook.page_contents (page_id, markdown, html)
        SELECT id, markdown, html FROM given WHERE delivered
        ON CONFLICT (page_id) DO UPDATE SET markdown = excluded.markdown, html = excluded.html
    )
    INSERT INTO webhook.pages AS page (
        id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
        received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
        queued_at, settled_at, settled_in
    )
    SELECT id, crawl_id, source_key, source_url, url, document_key, state, revision, delivered, pulled,
        received_at, webhook_id, status_code, title, language, job_id, error_code, error, error_detail,
        CASE WHEN delivered THEN clock_timestamp() END,
        CASE WHEN NOT delivered THEN coalesce(settled_at, clock_timestamp()) END,
        CASE WHEN NOT delivered THEN CAST(CAST(pg_current_xact_id() AS text) AS bigint) END
    FROM given
    ON CONFLICT (id) DO UPDATE SET
        url = excluded.url, document_key = excluded.document_key, state = excluded.state,
        revision = excluded.revision, delivered = excluded.delivered, pulled = excluded.pulled,
        received_at = excluded.received_at, webhook_id = excluded.webhook_id,
        status_code = excluded.status_code, title = excluded.title, language = excluded.language,
        job_id = coalesce(excluded.job_id, page.job_id), error_code = excluded.error_code,
        error = excluded.error, error_detail = excluded.error_detail,
        queued_at = coalesce(excluded.queued_at, page.queued_at), settled_at = excluded.settled_at,
        settled_in = excluded.settled_in,
        started_at = CASE WHEN NOT excluded.delivered THEN page.started_at END,
        queue_wait_ms = CASE WHEN NOT excluded.delivered THEN page.queue_wait_ms END,
        total_ms = CASE WHEN NOT excluded.delivered THEN page.total_ms END,
        chunks = CASE WHEN NOT excluded.delivered THEN page.chunks END,
        stages = CASE WHEN excluded.delivered THEN '{}' ELSE page.stages END
    WHERE page.crawl_id = excluded.crawl_id AND page.source_key = excluded.source_key
    RETURNING id, settled_at
""")
_REFRESH_LAST_SETTLED = text("""
    UPDATE webhook.crawl_sessions AS session SET last_settled_at = (
        SELECT max(page.settled_at) FROM webhook.pages AS page WHERE page.crawl_id = session.crawl_id
    )
    WHERE crawl_id = ANY (CAST(:crawl_ids AS text[]))
""")


Source = tuple[str, str]
"""A page by its crawl and source URL."""


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
    """In place of Markdown, where none was delivered."""
    queued_at: datetime | None
    past: Mapping[str, FailedAttempts] = field(default_factory=dict)
    """Attempts at this revision after which the page was put back, by error code."""


@dataclass(frozen=True)
class Outcome:
    state: PageState
    """`QUEUED` for a page that waits for another attempt."""
    chunks: int | None = None
    error_code: str | None = None
    error: str | None = None
    content_hash: str | None = None
    """See `PreparedDocument`."""


@dataclass(frozen=True)
class EndedAttempt:
    claim: ClaimedPage
    outcome: Outcome | None
    """None if the claim does not hold any more."""
    measurements: Sequence[Measurement]


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


# ---------------------------------------------------------------------- rows and contents


async def lock_page(connection: AsyncConnection, page_id: int) -> Row[Any] | None:
    locked = await connection.execute(
        select(*PAGES.c).where(PAGES.c.id == page_id).with_for_update(key_share=True)
    )
    return locked.one_or_none()


async def lock_delivered_pages(
    connection: AsyncConnection, sources: Sequence[Source]
) -> dict[Source, KnownPage]:
    """Pages by crawl and source URL. Locks those that are stored; the others have a new id each, in order."""
    if not sources:
        return {}
    keys = {source: hash_key(source[1]) for source in sources}
    ordered = sorted(sources)  # as others lock them
    given = {
        "crawl_ids": [crawl_id for crawl_id, _ in ordered],
        "source_keys": [keys[source] for source in ordered],
    }
    rows = (await connection.execute(LOCK_SOURCES, given)).all()
    usable = [row.id for row in rows if row.delivered]
    contents = {}
    if usable:  # by a statement of its own: it reads what is there after the locks
        hashed = await connection.execute(_HASH_CONTENTS, {"page_ids": usable})
        contents = {row.page_id: row for row in hashed}
    stored = {
        (row.crawl_id, row.source_key): _known(row, contents.get(row.id))
        for row in rows
        if row.id is not None
    }
    new_ids = iter(sorted(row.new_id for row in rows if row.id is None))
    found = {source: stored.get((source[0], key)) for source, key in keys.items()}
    return {source: page or KnownPage(next(new_ids)) for source, page in found.items()}


def _known(row: Row[Any], content: Row[Any] | None) -> KnownPage:
    cause_precision = 0 if row.delivered else precision(row.error_code)
    return KnownPage(
        id=row.id,
        revision=row.revision,
        state=PageState(row.state),
        arrival=Arrival(row.delivered, cause_precision, not row.pulled, row.received_at, row.webhook_id),
        url=row.url,
        title=row.title,
        language=row.language,
        error_code=row.error_code,
        error=row.error,
        settled_at=row.settled_at,
        is_html=content is not None and content.is_html,
        content_hash=content.hash if content else None,
    )


async def store_delivered_pages(
    connection: AsyncConnection,
    changed: Mapping[Source, KnownPage],
    job_ids: Mapping[Source, int],
) -> dict[Source, datetime]:
    """Writes pages, by crawl and source URL, as their last delivery left them; returns when those without
    content settled. Locks new pages in the order in which others lock them."""
    if not changed:
        return {}
    rows = []
    for source, page in sorted(changed.items()):
        delivered = page.delivered
        assert delivered is not None
        rows.append(
            (
                *(page.id, source[0], hash_key(source[1]), source[1]),
                *(delivered.url, hash_key(delivered.url), page.state, page.revision),
                *(delivered.failure is None, not delivered.arrival.pushed, delivered.arrival.received_at),
                *(delivered.arrival.webhook_id, delivered.status_code, delivered.title, delivered.language),
                *(job_ids.get(source), page.error_code, page.error, delivered.error_detail, page.settled_at),
                *(delivered.markdown, delivered.html),
            )
        )
    stored = (await connection.execute(_STORE_PAGES, arrays(_DELIVERED_COLUMNS, rows))).all()
    if len(stored) < len(rows):
        raise RuntimeError("a new page got the id of another one: the sequence of webhook.pages is behind")
    source_of = {page.id: source for source, page in changed.items()}
    return {source_of[row.id]: row.settled_at for row in stored if row.settled_at}


async def lock_pages(
    connection: AsyncConnection, crawl_id: str, keys: Sequence[UUID] | None = None
) -> Sequence[Row[Any]]:
    """The pages of a crawl whose source or document has one of `keys`; without them all that failed."""
    if keys is None:
        chosen = PAGES.c.state == PageState.FAILED
    else:
        any_key = any_(cast(list(keys), ARRAY(Uuid)))
        chosen = or_(PAGES.c.source_key == any_key, PAGES.c.document_key == any_key)
    pages = select(*PAGES.c).where(PAGES.c.crawl_id == crawl_id, chosen)
    return (await connection.execute(pages.order_by(*LOCK_ORDER).with_for_update())).all()


async def lock_all_pages(connection: AsyncConnection, crawl_id: str) -> list[int | None]:
    """Locks the pages of a crawl, which no worker can settle then; returns their jobs."""
    pages = select(PAGES.c.job_id).where(PAGES.c.crawl_id == crawl_id).order_by(*LOCK_ORDER)
    return list(await connection.scalars(pages.with_for_update()))


async def known_pages(connection: AsyncConnection, crawl_id: str) -> Sequence[Any]:
    """Per page of a crawl `source_key`, `source_url`, `delivered`, `status_code`, `error_code` and, as
    `words`, why it failed.
    """
    pages = await connection.execute(
        select(
            *(PAGES.c.source_key, PAGES.c.source_url, PAGES.c.delivered, PAGES.c.status_code),
            *(PAGES.c.error_code, func.coalesce(PAGES.c.error_detail, PAGES.c.error).label("words")),
        ).where(PAGES.c.crawl_id == crawl_id)
    )
    return pages.all()


async def queue_page(
    connection: AsyncConnection, page_id: int, revision: int, alone: bool = False, **values: Any
) -> int:
    """Enqueues a job for the page and clears its last outcome. `values` are further columns."""
    payload = {"page_id": page_id, "revision": revision} | ({"alone": True} if alone else {})
    [job_id] = await enqueue(connection, INDEX_PAGE, [payload])
    await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            **values,
            state=PageState.QUEUED,
            revision=revision,
            job_id=job_id,
            queued_at=NOW,
            **dict.fromkeys(_OUTCOME_COLUMNS),
            stages={},
        )
    )
    return job_id


async def write_outcome(
    connection: AsyncConnection,
    page_id: int,
    state: PageState,
    error_code: str | None = None,
    error: str | None = None,
    at: datetime | None = None,
    **values: Any,
) -> datetime:
    """Settles the page, now or `at` another time; returns when. `values` are further columns."""
    settled = await connection.execute(
        update(PAGES)
        .where(PAGES.c.id == page_id)
        .values(
            state=state,
            settled_at=at or NOW,
            settled_in=THIS_TRANSACTION,
            error_code=error_code,
            error=error,
            **values,
        )
        .returning(PAGES.c.settled_at)
    )
    settled_at: datetime = settled.scalar_one()
    return settled_at


async def fail_page(connection: AsyncConnection, page: Row[Any], error_code: str, error: str) -> None:
    """Settles a page that no worker has claimed as failed."""
    settled_at = await write_outcome(
        connection, page.id, PageState.FAILED, error_code, error, queue_wait_ms=QUEUE_WAIT_MS
    )
    change = SessionChange()
    change.move_page(PageState(page.state), PageState.FAILED, settled_at)
    await write_changes(connection, {page.crawl_id: change})
    count_settled(connection, {PageState.FAILED: 1})


async def refresh_last_settled(connection: AsyncConnection, crawl_ids: Collection[str]) -> None:
    """For crawls of which settled pages wait again."""
    await lock_sessions(connection, crawl_ids)  # by a statement before: pages are read as they are then
    await connection.execute(_REFRESH_LAST_SETTLED, {"crawl_ids": list(crawl_ids)})


async def keep_markdown(connection: AsyncConnection, markdown: Mapping[int, str]) -> None:
    """The Markdown of pages that were delivered as HTML, by their ids."""
    if markdown:
        values = {"page_ids": list(markdown), "markdown": list(markdown.values())}
        await connection.execute(_KEEP_MARKDOWN, values)


async def newest_contents(connection: AsyncConnection, document_key: UUID, limit: int) -> Sequence[Any]:
    """`title`, `language` and `markdown` of a document's pages, the one found last first.

    Without pages that failed: no index has anything of those.
    """
    rows = await connection.execute(
        select(PAGES.c.title, PAGES.c.language, CONTENTS.c.markdown)
        .select_from(FINDINGS.join(CONTENTS, CONTENTS.c.page_id == PAGES.c.id))
        .where(
            PAGES.c.document_key == document_key,
            PAGES.c.delivered,
            PAGES.c.state.not_in([PageState.FAILED, PageState.CANCELLED]),
        )
        .order_by(FOUND_AT.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc())
        .limit(limit)
    )
    return rows.all()


# ---------------------------------------------------------------------- attempts


async def claim_pages(
    connection: AsyncConnection, jobs: Sequence[PageJob], worker: str
) -> list[ClaimedPage | None]:
    """Starts attempts. None where a job is void: its page is settled, replaced, deleted or of another job."""
    locked = await _lock_pages(connection, [job.page_id for job in jobs])
    claimable = {
        job.page_id: job
        for job in jobs
        if (page := locked.get(job.page_id))
        and (page.revision, page.job_id) == (job.revision, job.job_id)
        and page.state in UNSETTLED
    }
    past: Mapping[int, Mapping[str, FailedAttempts]] = {}
    if again := [locked[page_id] for page_id in claimable if locked[page_id].attempts]:
        await _supersede_attempts(connection, again)
        await close_lost_attempts(connection, again)
        past = await _failed_attempts(connection, again)
    rows = await connection.execute(_START_ATTEMPTS, {"page_ids": list(claimable), "worker": worker})
    started = {row.id: row for row in rows}
    waits = [row.waited_seconds for row in started.values() if row.waited_seconds is not None]
    meters.on_commit(connection, lambda: meters.observe(conventions.QUEUE_WAITS, *waits))

    def claimed(job: PageJob) -> ClaimedPage | None:
        if claimable.get(job.page_id) != job:
            return None
        page, attempt = locked[job.page_id], started[job.page_id]
        return ClaimedPage(
            id=page.id,
            job_id=job.job_id,
            crawl_id=page.crawl_id,
            revision=page.revision,
            attempt=attempt.attempts,
            source_url=page.source_url,
            url=page.url,
            title=page.title,
            language=page.language,
            markdown=attempt.markdown or "",
            html=attempt.html or "",
            queued_at=page.queued_at,
            past=past.get(page.id, {}),
        )

    return [claimed(job) for job in jobs]


async def still_claimed(connection: AsyncConnection, claims: Sequence[ClaimedPage]) -> list[bool]:
    """Locks the pages; false for one that was settled, replaced, deleted or claimed again meanwhile."""
    locked = await _lock_pages(connection, [claim.id for claim in claims])
    return [
        (page := locked.get(claim.id)) is not None
        and page.state in UNSETTLED
        and (page.revision, page.attempts) == (claim.revision, claim.attempt)
        for claim in claims
    ]


async def end_attempts(connection: AsyncConnection, ended: Sequence[EndedAttempt]) -> None:
    """Writes outcomes of pages, attempts, operations, totals and counts. The caller has seen by
    `still_claimed` which attempts have an outcome.

    Of one without only the time is kept. It may have settled the page itself, in a commit whose answer was
    lost: an attempt that has ended stays as it is.
    """
    if not ended:
        return
    rows = [_ended_row(each) for each in ended]
    written = await connection.execute(_END_ATTEMPTS, arrays(_ENDED_COLUMNS, rows))
    by_attempt = {(row.page_id, row.number): row for row in written}
    changes: dict[str, SessionChange] = defaultdict(SessionChange)
    measurements: list[Measurement] = []
    for each, (*_, unaccounted_ms) in zip(ended, rows, strict=True):
        row, change = by_attempt[each.claim.id, each.claim.attempt], changes[each.claim.crawl_id]
        if each.outcome:
            change.move_page(PageState.INDEXING, each.outcome.state, row.settled_at)
        if row.closed:
            measurements += each.measurements
            _measure_attempt(change, row, unaccounted_ms)
    await write_changes(connection, changes, measurements)
    count_settled(connection, Counter(each.outcome.state for each in ended if each.outcome))


def count_settled(connection: AsyncConnection, states: Mapping[PageState, int]) -> None:
    """For monitoring, when the transaction commits. `QUEUED` is a page that was put back."""

    def count() -> None:
        for state, pages in states.items():
            if state.settled:
                meters.count(conventions.PAGES, state, amount=pages)
            else:
                meters.count(conventions.RETRIES, amount=pages)

    if states:
        meters.on_commit(connection, count)


def _measure_attempt(change: SessionChange, attempt: Row[Any], unaccounted_ms: float) -> None:
    """What an attempt measured besides operations."""
    change.measure(attempt.started_at, UNACCOUNTED, unaccounted_ms)
    if attempt.queued_at is not None:
        seconds = (attempt.started_at - attempt.queued_at).total_seconds()
        change.measure(attempt.started_at, QUEUE_WAIT, whole_ticks(max(0.0, seconds * 1000)))


def _ended_row(ended: EndedAttempt) -> tuple[Any, ...]:
    """In the order of `_ENDED_COLUMNS`."""
    attempt, outcome = (ended.claim.id, ended.claim.attempt), ended.outcome
    stages: dict[str, float] = {}
    total_ms = 0.0
    for each in ended.measurements:
        if each.operation_type == OperationType.WORKER:
            total_ms += each.duration_ms
        else:
            stages[each.operation_type] = stages.get(each.operation_type, 0.0) + each.duration_ms
    spent = json.dumps(stages), total_ms, max(0.0, total_ms - sum(stages.values()))
    if outcome is None:
        return *attempt, None, SUPERSEDED, None, None, None, None, *spent
    word = outcome.state if outcome.state.settled else RETRIED
    content = (outcome.chunks, outcome.content_hash)
    return *attempt, outcome.state, word, outcome.error_code, outcome.error, *content, *spent


async def _lock_pages(connection: AsyncConnection, page_ids: Sequence[int]) -> dict[int, Row[Any]]:
    rows = await connection.execute(_LOCK_PAGES, {"page_ids": page_ids})
    return {row.id: row for row in rows}


async def _supersede_attempts(connection: AsyncConnection, pages: Sequence[Row[Any]]) -> None:
    """Attempts at content that was replaced: their workers may live, and add the time when they end."""
    replaced = or_(
        *[and_(ATTEMPTS.c.page_id == page.id, ATTEMPTS.c.revision < page.revision) for page in pages]
    )
    await connection.execute(
        update(ATTEMPTS)
        .where(replaced, ATTEMPTS.c.outcome.is_(None))
        .values(finished_at=NOW, outcome=SUPERSEDED)
    )


async def _failed_attempts(
    connection: AsyncConnection, pages: Sequence[Row[Any]]
) -> Mapping[int, Mapping[str, FailedAttempts]]:
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


# ---------------------------------------------------------------------- attempts of workers that died


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
    operations = [_operation_of_dead(page, attempt, error) for page, attempt in died]
    changes: dict[str, SessionChange] = defaultdict(SessionChange)
    for (page, attempt), operation in zip(died, operations, strict=True):
        spent_ms = operation.duration_ms
        values = {"total_ms": spent_ms, "unaccounted_ms": spent_ms}
        await connection.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id).values(**values))
        _measure_attempt(changes[page.crawl_id], attempt, spent_ms)
    await write_changes(connection, changes, operations)


def _operation_of_dead(page: Row[Any], attempt: Any, error: str) -> TimingContext:
    return TimingContext.past(
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
