"""One job of a worker: a page is claimed, indexed and settled, and counts once whatever happens."""

import asyncio
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError, PageError
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.crawler.reading.markdown import to_markdown
from crawlscope.database.engine import Database
from crawlscope.indexing.documents import stored_since
from crawlscope.indexing.in_thread import in_thread
from crawlscope.indexing.service import (
    DocumentMetadata,
    IndexDocumentRequest,
    IndexingService,
    PreparedDocument,
)
from crawlscope.pages.repository import (
    ClaimedPage,
    Outcome,
    PastTries,
    abandon,
    claim_page,
    keep_markdown,
    put_back,
    settle_page,
    still_claimed,
)
from crawlscope.pages.retry import PageTimeout, in_time, pause_seconds, tries_allowed
from crawlscope.timing import TimingContext, scope

INTERNAL_ERROR = "internal_error"
WORKER_STOPPED = "worker_stopped"
NO_TEXT = "no_text"

log = structlog.get_logger(__name__)


class PutBack(Exception):
    """The page waits in the queue again, for so many seconds at least."""

    def __init__(self, error: Exception, pause_seconds: float) -> None:
        super().__init__(_words(error))
        self.error = error
        self.pause_seconds = pause_seconds


class PageIndexer:
    """`worker` names the process in the attempts it makes; a page that fails in an unexpected way is tried
    `max_attempts` times, and no try lasts longer than `timeout_seconds`."""

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
            lambda connection: claim_page(connection, page_id, revision, self._worker, job_id)
        )
        if claim is None:
            return
        measured: list[TimingContext] = []
        with scope(
            crawl_id=claim.crawl_id,
            job_id=str(job_id),
            document_url=claim.source_url,
            collect=measured.append,
        ):
            try:
                async with in_time(self._timeout_seconds):
                    await self._index(claim, measured)
            except PageError as error:
                await self._set_aside(claim, error.code, _words(error), measured)
            except asyncio.CancelledError as error:
                _mark_failed(measured, error)
                await self._put_back(claim, WORKER_STOPPED, "the worker was stopped", measured)
                raise
            except Exception as error:
                if not isinstance(error, CrawlscopeError):
                    log.exception("page_attempt_failed", url=claim.source_url, crawl_id=claim.crawl_id)
                _mark_failed(measured, error)
                await self._try_again(claim, error, measured)

    async def remove_gone(self, page_id: int) -> None:
        """Follows the site where a page is gone. Raises a `DependencyError` while it cannot."""
        await self._database.run(lambda connection: self._indexing.remove_gone(connection, page_id))

    async def _try_again(self, claim: ClaimedPage, error: Exception, measured: list[TimingContext]) -> None:
        """Raises `PutBack`, unless this page was tried in vain too often."""
        code, words = _code_of(error), _words(error)
        past = claim.past.get(code, PastTries())
        tries = past.count + 1
        if await self._is_hopeless(error, tries, past.first_at):
            await self._set_aside(claim, code, words, measured)
            return
        await self._put_back(claim, code, words, measured)
        raise PutBack(error, pause_seconds(tries)) from error

    async def _is_hopeless(self, error: Exception, tries: int, first_at: datetime | None) -> bool:
        if tries < tries_allowed(error, self._max_attempts):
            return False
        if isinstance(error, PageTimeout) or not isinstance(error, CrawlscopeError):
            return True
        return first_at is not None and await self._database.run(
            lambda connection: stored_since(connection, first_at)
        )

    async def _index(self, claim: ClaimedPage, measured: list[TimingContext]) -> None:
        with TimingContext(OperationType.WORKER, "index_document") as whole:
            whole.metadata["attempt"] = claim.attempt
            if claim.html:
                with TimingContext(OperationType.CHUNKING, "read_html"):
                    claim = replace(claim, markdown=await in_thread(read_html, claim.html, claim.url))
            prepared = await self._indexing.prepare(_document(claim))
            before_store = len(measured)

            async def settle(connection: AsyncConnection) -> None:
                del measured[before_store:]  # of a transaction that lost against another one
                await self._settle(connection, claim, prepared, whole, measured)

            await self._database.run(settle)

    async def _settle(
        self,
        connection: AsyncConnection,
        claim: ClaimedPage,
        prepared: PreparedDocument,
        whole: TimingContext,
        measured: list[TimingContext],
    ) -> None:
        if not await still_claimed(connection, claim):
            whole.stop()
            await abandon(connection, claim, measured)
            return
        stored = await self._indexing.store(connection, prepared, claim.crawl_id, claim.source_url)
        whole.stop()
        reason = prepared.unreadable or stored.reason
        if claim.html:
            await keep_markdown(connection, claim.id, claim.markdown)
        if stored.state is PageState.EMPTY and not reason:
            reason = PageError(NO_TEXT, _why_empty(claim))
        outcome = Outcome(
            stored.state,
            stored.chunks,
            error_code=reason.code if reason else None,
            error=_words(reason) if reason else None,
        )
        await settle_page(connection, claim, outcome, measured)

    async def _set_aside(
        self, claim: ClaimedPage, code: str, words: str, measured: list[TimingContext]
    ) -> None:
        outcome = Outcome(PageState.FAILED, error_code=code, error=words)

        async def settle(connection: AsyncConnection) -> None:
            if await still_claimed(connection, claim):
                await settle_page(connection, claim, outcome, measured)
            else:
                await abandon(connection, claim, measured)

        await self._database.run(settle)
        log.info("page_failed", url=claim.source_url, crawl_id=claim.crawl_id, code=code, reason=words)

    async def _put_back(
        self, claim: ClaimedPage, code: str, words: str, measured: list[TimingContext]
    ) -> None:
        """Best effort: where the database is away too, the next attempt closes this one."""
        try:
            await self._database.run(lambda connection: put_back(connection, claim, code, words, measured))
        except Exception as error:  # noqa: BLE001 - the error that put it back is the one to raise
            log.warning("page_not_put_back", url=claim.source_url, reason=str(error))


def _why_empty(claim: ClaimedPage) -> str:
    if claim.html:
        return "no Markdown came with the page, and its HTML has no text"
    if claim.markdown.strip():
        return "no word is left of the page's Markdown"
    return "no text came with the page: neither Markdown nor HTML"


def _document(claim: ClaimedPage) -> IndexDocumentRequest:
    return IndexDocumentRequest(
        url=claim.url,
        markdown=claim.markdown,
        metadata=DocumentMetadata(url=claim.url, title=claim.title, language=claim.language),
    )


def _mark_failed(measured: list[TimingContext], error: BaseException) -> None:
    """The work as a whole failed even where its measurement had ended before the commit did."""
    for each in measured:
        if each.operation_type == OperationType.WORKER:
            each.fail(_words(error))


def _words(error: BaseException) -> str:
    return storable(str(error)) or type(error).__name__


def _code_of(error: Exception) -> str:
    return error.code if isinstance(error, CrawlscopeError) else INTERNAL_ERROR


def read_html(html: str, url: str) -> str:
    """Its Markdown, as the built-in crawler reads pages. Blocks: call it in a thread."""
    return storable(to_markdown(html, url).markdown)
