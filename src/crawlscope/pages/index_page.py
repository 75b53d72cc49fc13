"""One job of a worker: claims a page, indexes it and settles it. The page counts once whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError, PageError
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.crawler.reading.markdown import to_markdown
from crawlscope.database.engine import Database
from crawlscope.indexing.in_thread import in_thread
from crawlscope.indexing.service import (
    DocumentMetadata,
    IndexDocumentRequest,
    IndexingService,
)
from crawlscope.pages.repository import (
    ClaimedPage,
    FailedAttempts,
    Outcome,
    abandon,
    claim_page,
    keep_markdown,
    put_back,
    settle_page,
    still_claimed,
)
from crawlscope.pages.retry import PageTimeout, is_exhausted, retry_seconds
from crawlscope.timing import TimingContext, scope

INTERNAL_ERROR = "internal_error"
WORKER_STOPPED = "worker_stopped"
NO_TEXT = "no_text"

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


class PageIndexer:
    """`worker` names the process in its attempts. `max_attempts` holds for errors that are unexpected; no
    attempt lasts longer than `timeout_seconds`.
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

    async def index(self, page_id: int, revision: int, job_id: int) -> None:
        """Settles the page, or raises `PutBack`; a `DependencyError` where not even that could be written."""
        claim = await self._database.run(
            partial(claim_page, page_id=page_id, revision=revision, worker=self._worker, job_id=job_id)
        )
        if claim is None:
            return
        measured: list[TimingContext] = []
        try:
            async with in_time(self._timeout_seconds):
                await self._index(claim, job_id, measured)
        except PageError as error:
            await self._fail(claim, error, measured)
        except asyncio.CancelledError as error:
            _mark_failed(measured, error)
            await self._put_back(claim, WORKER_STOPPED, "the worker was stopped", measured)
            raise
        except Exception as error:
            if not isinstance(error, CrawlscopeError):
                log.exception("page_attempt_failed", url=claim.source_url, crawl_id=claim.crawl_id)
            _mark_failed(measured, error)
            past = claim.past.get(_code_of(error), FailedAttempts())
            if await is_exhausted(self._database, error, past, self._max_attempts):
                await self._fail(claim, error, measured)
                return
            await self._put_back(claim, _code_of(error), _words(error), measured)
            raise PutBack(error, retry_seconds(past.count + 1)) from error

    async def remove_gone(self, page_id: int) -> None:
        """Removes the documents of a page that is gone. Raises a `DependencyError` while it cannot."""
        await self._database.run(lambda connection: self._indexing.remove_gone(connection, page_id))

    async def _index(self, claim: ClaimedPage, job_id: int, measured: list[TimingContext]) -> None:
        with (
            scope(claim.crawl_id, str(job_id), document_url=claim.source_url, collect=measured.append),
            TimingContext(OperationType.WORKER, "index_document") as whole,
        ):
            whole.metadata["attempt"] = claim.attempt
            if claim.html:
                with TimingContext(OperationType.CHUNKING, "read_html"):
                    read = await in_thread(to_markdown, claim.html, claim.url)
                    claim = replace(claim, markdown=storable(read.markdown))
            metadata = DocumentMetadata(url=claim.url, title=claim.title, language=claim.language)
            prepared = await self._indexing.prepare(
                IndexDocumentRequest(url=claim.url, markdown=claim.markdown, metadata=metadata)
            )
            before_store = len(measured)

            async def settle(connection: AsyncConnection) -> None:
                del measured[before_store:]  # of a transaction that lost against another one
                if not await still_claimed(connection, claim):
                    whole.stop()
                    await abandon(connection, claim, measured)
                    return
                stored = await self._indexing.store(connection, prepared, claim.crawl_id, claim.source_url)
                whole.stop()
                if claim.html:
                    await keep_markdown(connection, claim.id, claim.markdown)
                reason = prepared.unreadable or stored.reason
                if stored.state is PageState.EMPTY and not reason:
                    reason = PageError(NO_TEXT, _why_empty(claim))
                code, words = (reason.code, _words(reason)) if reason else (None, None)
                outcome = Outcome(stored.state, stored.chunks, code, words)
                await settle_page(connection, claim, outcome, measured)

            await self._database.run(settle)

    async def _fail(self, claim: ClaimedPage, error: Exception, measured: list[TimingContext]) -> None:
        code, words = _code_of(error), _words(error)

        async def settle(connection: AsyncConnection) -> None:
            if await still_claimed(connection, claim):
                outcome = Outcome(PageState.FAILED, error_code=code, error=words)
                await settle_page(connection, claim, outcome, measured)
            else:
                await abandon(connection, claim, measured)

        await self._database.run(settle)
        log.info("page_failed", url=claim.source_url, crawl_id=claim.crawl_id, code=code, reason=words)

    async def _put_back(
        self, claim: ClaimedPage, code: str, words: str, measured: list[TimingContext]
    ) -> None:
        """Best effort: where the database is unavailable too, the next attempt closes this one."""
        try:
            await self._database.run(lambda connection: put_back(connection, claim, code, words, measured))
        except Exception as error:  # noqa: BLE001 - the error that put it back is the one to raise
            log.warning("page_requeue_failed", url=claim.source_url, reason=str(error))


def _why_empty(claim: ClaimedPage) -> str:
    if claim.html:
        return "no Markdown came with the page, and its HTML has no text"
    if claim.markdown.strip():
        return "no word is left of the page's Markdown"
    return "no text came with the page: neither Markdown nor HTML"


def _mark_failed(measured: list[TimingContext], error: BaseException) -> None:
    """The work as a whole failed even where its measurement had ended before the commit did."""
    for each in measured:
        if each.operation_type == OperationType.WORKER:
            each.fail(_words(error))


def _words(error: BaseException) -> str:
    return storable(str(error)) or type(error).__name__


def _code_of(error: Exception) -> str:
    return error.code if isinstance(error, CrawlscopeError) else INTERNAL_ERROR
