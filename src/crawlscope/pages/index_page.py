"""One job of a worker: claims a page, indexes it and settles it. The page counts once whatever happens."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.batcher import Batcher
from crawlscope.core.errors import CrawlscopeError, PageError
from crawlscope.core.in_thread import in_thread
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.crawler.reading.markdown import to_markdown
from crawlscope.database.engine import Database
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.repository import Live
from crawlscope.indexing.service import (
    DocumentMetadata,
    IndexDocumentRequest,
    IndexingService,
)
from crawlscope.pages.attempts import ClaimedPage, FailedAttempts, PageJob, claim_pages
from crawlscope.pages.outcomes import (
    EndedAttempt,
    Outcome,
    PreparedPage,
    end_attempts,
    error_text,
    settle,
    still_claimed,
)
from crawlscope.pages.retry import PageTimeout, is_exhausted, retry_seconds
from crawlscope.sessions.repository import traceparents_of
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.telemetry import traces

INTERNAL_ERROR = "internal_error"
WORKER_STOPPED = "worker_stopped"
TEXT_LOST = "text_lost"
MAX_PAGES = 16
"""Per transaction."""
MANY_CHUNKS = 128
"""A page with more is stored alone."""

log = structlog.get_logger(__name__)


class PutBack(Exception):
    """The page waits in the queue again, for `delay_seconds` at least."""

    def __init__(self, error: Exception, delay_seconds: float) -> None:
        super().__init__(error_text(error))
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
class _Claim:
    page: ClaimedPage
    live: Live
    traceparent: object = None
    """Of the crawl's initiator, if spans are exported."""


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
        self._worker = worker
        self._max_attempts = max_attempts
        self._timeout_seconds = timeout_seconds
        # A page may be locked for long, for example while its crawl is deleted.
        self._claims = Batcher(self._claim_all, max_items=MAX_PAGES, concurrency=2)
        self._stores = Batcher(self._store_all, max_items=MAX_PAGES)
        self._stores_alone = Batcher(self._store_all, max_items=1, concurrency=2)
        self._ends = Batcher(self._end_all, max_items=MAX_PAGES)

    async def index(self, page_id: int, revision: int, job_id: int) -> None:
        """Settles the page, or raises `PutBack`; a `DependencyError` where not even that could be written."""
        claim = await self._claim(PageJob(page_id, revision, job_id))
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
            await self._put_back(page, _code_of(error), error_text(error), measured)
            raise PutBack(error, retry_seconds(past.count + 1)) from error

    async def remove_gone(self, page_id: int) -> None:
        """Removes the documents of a page that is gone. Raises a `DependencyError` while it cannot."""
        await self._database.run(lambda connection: self._indexing.remove_gone(connection, page_id))

    async def _claim(self, job: PageJob) -> _Claim | None:
        claiming = asyncio.ensure_future(self._claims.add(job))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            if claim := await claiming:
                await self._put_back(claim.page, WORKER_STOPPED, "the worker was stopped", [])
            raise

    async def _claim_all(self, jobs: Sequence[PageJob]) -> list[_Claim | None]:
        async def claim(connection: AsyncConnection) -> list[_Claim | None]:
            pages = await claim_pages(connection, jobs, self._worker)
            live = await generations.live(connection, [page.url for page in pages if page])
            traceparents: Mapping[str, object] = {}
            if traces.in_use():
                traceparents = await traceparents_of(connection, {page.crawl_id for page in pages if page})
            return [_Claim(page, live, traceparents.get(page.crawl_id)) if page else None for page in pages]

        return await self._database.run(claim)

    async def _index(self, claim: _Claim, measured: list[TimingContext]) -> None:
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
                prepared = await self._indexing.opened.prepare(request, claim.live)
                # A large page would delay others, and one that failed before may be the cause.
                alone = page.past or len(prepared.document.texts) > MANY_CHUNKS
                stores = self._stores_alone if alone else self._stores
                with TimingContext(OperationType.QDRANT, "index_chunks") as storing:
                    await stores.add(PreparedPage(page, prepared, (*measured,), (storing, whole)))

    async def _store_all(self, prepared: Sequence[PreparedPage]) -> list[CrawlscopeError | None]:
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

    async def _end_all(self, ended: Sequence[EndedAttempt]) -> list[None]:
        async def end(connection: AsyncConnection) -> None:
            held = await still_claimed(connection, [each.claim for each in ended])
            superseded = [replace(each, outcome=None) for each in ended]
            pairs = zip(held, ended, superseded, strict=True)
            await end_attempts(connection, [each if holds else void for holds, each, void in pairs])

        await self._database.run(end)
        return [None] * len(ended)

    async def _fail(self, page: ClaimedPage, error: Exception, measured: list[TimingContext]) -> None:
        code, words = _code_of(error), error_text(error)
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


def _code_of(error: Exception) -> str:
    return error.code if isinstance(error, CrawlscopeError) else INTERNAL_ERROR
