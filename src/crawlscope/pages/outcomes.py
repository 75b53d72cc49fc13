"""Settles pages: stores their documents, and ends attempts with their outcomes. With the SQL."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError, PageError
from crawlscope.core.values import arrays, storable
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.indexing.service import FoundDocument, IndexingService, PreparedDocument, StoredDocument
from crawlscope.pages.attempts import LOCK_CLAIMED, RETRIED, SUPERSEDED, ClaimedPage
from crawlscope.pages.repository import UNSETTLED, keep_markdown
from crawlscope.sessions.changes import SessionChange
from crawlscope.timing import TimingContext
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters

NO_TEXT = "no_text"
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
class PreparedPage:
    """A page that is ready to be stored and settled."""

    page: ClaimedPage
    document: PreparedDocument
    measured: Sequence[TimingContext]
    running: Sequence[TimingContext]
    """Measurements that end when the page is stored."""

    def ended(self, stored: StoredDocument | None, pages: int) -> EndedAttempt:
        """The attempt as it ends now; `pages` were stored together, and the time is each one's."""
        ids = {
            "crawl_id": self.page.crawl_id,
            "job_id": str(self.page.job_id),
            "document_url": self.page.source_url,
        }
        now = [each.so_far(**ids, metadata={**each.metadata, "pages": pages}) for each in self.running]
        if stored is None:
            return EndedAttempt(self.page, None, [*self.measured, *now])
        reason = self.document.unreadable or stored.reason
        if stored.state is PageState.EMPTY and not reason:
            reason = PageError(NO_TEXT, _why_empty(self.page))
        code, words = (reason.code, error_text(reason)) if reason else (None, None)
        outcome = Outcome(stored.state, stored.chunks, code, words, self.document.content_hash)
        return EndedAttempt(self.page, outcome, [*self.measured, *now])


async def settle(
    connection: AsyncConnection, indexing: IndexingService, prepared: Sequence[PreparedPage]
) -> list[CrawlscopeError | None]:
    """Stores the documents of pages that are claimed still, and writes what became of the pages.

    An error is of a page that must be prepared again; it stays claimed.
    """
    held = await still_claimed(connection, [each.page for each in prepared])
    found = [
        FoundDocument(each.document, each.page.crawl_id, each.page.source_url)
        for each, holds in zip(prepared, held, strict=True)
        if holds
    ]
    stored = iter(await indexing.store(connection, found) if found else [])
    results = [next(stored) if holds else None for holds in held]
    ended = [
        each.ended(result, len(found))
        for each, result in zip(prepared, results, strict=True)
        if not isinstance(result, CrawlscopeError)
    ]
    if made := {each.claim.id: each.claim.markdown for each in ended if each.outcome and each.claim.html}:
        await keep_markdown(connection, made)
    await end_attempts(connection, ended)
    return [result if isinstance(result, CrawlscopeError) else None for result in results]


async def still_claimed(connection: AsyncConnection, claims: Sequence[ClaimedPage]) -> list[bool]:
    """Locks the pages; false for one that was settled, replaced, deleted or claimed again meanwhile."""
    rows = await connection.execute(LOCK_CLAIMED, {"page_ids": [claim.id for claim in claims]})
    locked = {row.id: row for row in rows}
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
        if row.closed:
            measurements += each.measurements
            change.measure_attempt(row.started_at, row.queued_at, unaccounted_ms)
        if each.outcome:
            change.moved[PageState.INDEXING, each.outcome.state] += 1
            change.settled_at.append(row.settled_at)
    await write_changes(connection, changes, measurements)
    meters.pages_settled(connection, Counter(each.outcome.state for each in ended if each.outcome))


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
    word = RETRIED if outcome.state is PageState.QUEUED else outcome.state
    content = (outcome.chunks, outcome.content_hash)
    return *attempt, outcome.state, word, outcome.error_code, outcome.error, *content, *spent


def _why_empty(claim: ClaimedPage) -> str:
    if claim.html:
        return "no Markdown came with the page, and its HTML has no text"
    if claim.markdown.strip():
        return "no word is left of the page's Markdown"
    return "no text came with the page: neither Markdown nor HTML"


def error_text(error: BaseException) -> str:
    return storable(str(error)) or type(error).__name__
