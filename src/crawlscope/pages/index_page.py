"""One job of a worker: claims a page, indexes it and settles it, with the SQL of the outcome.

The page counts once whatever happens.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.batcher import Batcher
from crawlscope.core.errors import CrawlscopeError, PageError
from crawlscope.core.gathering import Gathering
from crawlscope.core.in_thread import in_thread
from crawlscope.core.values import arrays, storable
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.crawler.reading.markdown import to_markdown
from crawlscope.database.engine import Database
from crawlscope.indexing.service import (
    DocumentMetadata,
    FoundDocument,
    IndexDocumentRequest,
    IndexingService,
    PreparedDocument,
    StoredDocument,
)
from crawlscope.pages.attempts import (
    LOCK_CLAIMED,
    RETRIED,
    SUPERSEDED,
    ClaimedPage,
    FailedAttempts,
    PageJob,
    claim_pages,
)
from crawlscope.pages.repository import UNSETTLED, keep_markdown
from crawlscope.pages.retry import PageTimeout, is_exhausted, retry_seconds
from crawlscope.sessions.changes import SessionChange
from crawlscope.sessions.repository import traceparents_of
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters, traces

INTERNAL_ERROR = "internal_error"
WORKER_STOPPED = "worker_stopped"
NO_TEXT = "no_text"
TEXT_LOST = "text_lost"
MAX_PAGES = 16
"""Per transaction."""
ENOUGH_PAGES = 8
"""So many pages are stored together while more are on their way: of two, each costs a sixth more."""
PAUSE_SECONDS = 0.1
PATIENCE = 0.25
"""Pages that are ready wait for another one so long at most, or for this share of the time that their
preparation took: with the model of this computer that is seconds, because 16 pages share it."""
MANY_CHUNKS = 128
"""A page with more is stored alone."""
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

log = structlog.get_logger(__name__)


class PutBack(Exception):
    """The page waits in the queue again, for `delay_seconds` at least."""

    def __init__(self, error: Exception, delay_seconds: float) -> None:
        super().__init__(_words(error))
        self.error = error
        self.delay_seconds = delay_seconds


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after so long, and raises `PageTimeout`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise PageTimeout(f"it was not done after {seconds:g} s") from None


@dataclass(frozen=True)
class Claim:
    page: ClaimedPage
    traceparent: object = None
    """The `traceparent` of the crawl's initiator, if spans are exported."""


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
class _Prepared:
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
            why = "no text came with the page: neither Markdown nor HTML"
            if self.page.html:
                why = "no Markdown came with the page, and its HTML has no text"
            elif self.page.markdown.strip():
                why = "no word is left of the page's Markdown"
            reason = PageError(NO_TEXT, why)
        code, words = (reason.code, _words(reason)) if reason else (None, None)
        outcome = Outcome(stored.state, stored.chunks, code, words, self.document.content_hash)
        return EndedAttempt(self.page, outcome, [*self.measured, *now])


class PageIndexer:
    """`worker` names the process in its attempts. `max_attempts` holds for errors that are unexpected; no
    attempt lasts longer than `timeout_seconds`.

    Pages in progress share their transactions and calls to the index.
    """

    def __init__(
        self,
        database: Database,
        indexing: IndexingService,
        worker: str,
        max_attempts: int,
        timeout_seconds: float,
    ) -> None:
        self._database = database
        self._indexing = indexing
        self._max_attempts = max_attempts
        self._timeout_seconds = timeout_seconds
        # A page may be locked for long, for example while its crawl is deleted.
        self._claims = Batcher[PageJob, Claim | None](
            lambda jobs: database.run(partial(claim_all, jobs=jobs, worker=worker)),
            max_items=MAX_PAGES,
            concurrency=2,
        )
        self._preparing = 0
        """Pages on their way to `_ready`."""
        self._ready = Gathering(ENOUGH_PAGES, lambda: self._preparing > 0, PAUSE_SECONDS)
        self._stores = Batcher(self._store_all, max_items=MAX_PAGES)
        self._stores_alone = Batcher(self._store_all, max_items=1, concurrency=2)
        self._ends = Batcher[EndedAttempt, None](
            lambda ended: database.run(partial(end_claimed, ended=ended)), max_items=MAX_PAGES
        )

    async def index(self, page_id: int, revision: int, job_id: int) -> None:
        """Settles the page, or raises `PutBack`; a `DependencyError` where not even that could be written."""
        claiming = asyncio.ensure_future(self._claims.add(PageJob(page_id, revision, job_id)))
        try:
            claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            if claim := await claiming:
                await self._put_back(claim.page, WORKER_STOPPED, "the worker was stopped", [])
            raise
        if claim is None:
            return
        page, measured = claim.page, list[TimingContext]()
        try:
            await self._index(claim, measured)
        except PageError as error:
            await self._fail(page, error, measured)
        except asyncio.CancelledError:
            await self._put_back(page, WORKER_STOPPED, "the worker was stopped", measured)
            raise
        except Exception as error:
            if not isinstance(error, CrawlscopeError):
                log.exception("page_attempt_failed", url=page.source_url, crawl_id=page.crawl_id)
            past = page.past.get(_code_of(error), FailedAttempts())
            if await is_exhausted(self._database, error, past, self._max_attempts):
                await self._fail(page, error, measured)
                return
            await self._put_back(page, _code_of(error), _words(error), measured)
            raise PutBack(error, retry_seconds(past.count + 1)) from error

    async def remove_gone(self, page_id: int) -> None:
        """Removes the documents of a page that is gone. Raises a `DependencyError` while it cannot."""
        await self._database.run(lambda connection: self._indexing.remove_gone(connection, page_id))

    async def _index(self, claim: Claim, measured: list[TimingContext]) -> None:
        page = claim.page
        with (
            traces.page(page.crawl_id, page.id, page.revision, page.queued_at, claim.traceparent),
            scope(page.crawl_id, str(page.job_id), document_url=page.source_url, collect=measured.append),
            TimingContext(OperationType.WORKER, "index_document") as whole,
        ):
            whole.metadata["attempt"] = page.attempt
            if page.is_lost:
                raise PageError(TEXT_LOST, "the stored body that has its text is damaged: crawl it again")
            async with in_time(self._timeout_seconds):
                if page.html:
                    with TimingContext(OperationType.CHUNKING, "read_html"):
                        read = await in_thread(to_markdown, page.html, page.url)
                        page = replace(page, markdown=storable(read.markdown))
                metadata = DocumentMetadata(url=page.url, title=page.title, language=page.language)
                request = IndexDocumentRequest(url=page.url, markdown=page.markdown, metadata=metadata)
                self._preparing += 1
                try:
                    prepared = await self._indexing.opened.prepare(
                        self._database, request, page.generation_id, page.known
                    )
                finally:
                    self._preparing -= 1
                    self._ready.look()
                # A large page would delay others, and one that failed before may be the cause.
                alone = page.past or len(prepared.document.texts) > MANY_CHUNKS
                stores = self._stores_alone if alone else self._stores
                if not alone and self._preparing:
                    with TimingContext(OperationType.EMBEDDING_WAIT, "wait_for_pages"):
                        await self._ready.wait(PATIENCE * whole.duration_ms / 1000)
                with TimingContext(OperationType.QDRANT, "index_chunks") as storing:
                    await stores.add(_Prepared(page, prepared, (*measured,), (storing, whole)))

    async def _store_all(self, prepared: Sequence[_Prepared]) -> list[CrawlscopeError | None]:
        """Stores and settles pages; those with the same document one after the other."""
        results: dict[int, CrawlscopeError | None] = {}
        left = dict(enumerate(prepared))
        while left:
            by_url = {each.page.url: number for number, each in reversed(left.items())}
            numbers = sorted(by_url.values())
            batch = [left.pop(number) for number in numbers]
            stored = await self._database.run(partial(settle, indexing=self._indexing, prepared=batch))
            results |= zip(numbers, stored, strict=True)
        return [results[number] for number in range(len(prepared))]

    async def _fail(self, page: ClaimedPage, error: Exception, measured: list[TimingContext]) -> None:
        code, words = _code_of(error), _words(error)
        outcome = Outcome(PageState.FAILED, error_code=code, error=words)
        await self._ends.add(EndedAttempt(page, outcome, measured))
        log.info("page_failed", url=page.source_url, crawl_id=page.crawl_id, code=code, reason=words)

    async def _put_back(
        self, page: ClaimedPage, code: str, words: str, measured: list[TimingContext]
    ) -> None:
        """Best effort: where the database is unavailable too, the next attempt closes this one."""
        outcome = Outcome(PageState.QUEUED, error_code=code, error=words)
        try:
            await self._ends.add(EndedAttempt(page, outcome, measured))
        except Exception as error:  # noqa: BLE001 - the error that put it back is the one to raise
            log.warning("page_requeue_failed", url=page.source_url, reason=str(error))


async def claim_all(connection: AsyncConnection, jobs: Sequence[PageJob], worker: str) -> list[Claim | None]:
    """None for a job that is void; see `claim_pages`."""
    pages = await claim_pages(connection, jobs, worker)
    traceparents: Mapping[str, object] = {}
    if traces.in_use():
        traceparents = await traceparents_of(connection, {page.crawl_id for page in pages if page})
    return [Claim(page, traceparents.get(page.crawl_id)) if page else None for page in pages]


async def settle(
    connection: AsyncConnection, indexing: IndexingService, prepared: Sequence[_Prepared]
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


async def end_claimed(connection: AsyncConnection, ended: Sequence[EndedAttempt]) -> list[None]:
    """Ends attempts; of one whose claim does not hold any more, only the time counts."""
    held = await still_claimed(connection, [each.claim for each in ended])
    superseded = [replace(each, outcome=None) for each in ended]
    pairs = zip(held, ended, superseded, strict=True)
    await end_attempts(connection, [each if holds else void for holds, each, void in pairs])
    return [None] * len(ended)


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

    Only the time is stored for one without an outcome. It may have settled the page itself, in a commit whose
    answer was lost: an attempt that has ended stays as it is.
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


def _words(error: BaseException) -> str:
    return storable(str(error)) or type(error).__name__


def _code_of(error: Exception) -> str:
    return error.code if isinstance(error, CrawlscopeError) else INTERNAL_ERROR
