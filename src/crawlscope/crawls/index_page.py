"""One job of a worker: a page is claimed, indexed and settled, and counts once whatever happens."""

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.crawls.pages import (
    ClaimedPage,
    Outcome,
    abandon,
    claim_page,
    put_back,
    settle_page,
    still_claimed,
)
from crawlscope.database.engine import Database
from crawlscope.errors import PageError
from crawlscope.indexing.service import (
    DocumentMetadata,
    IndexDocumentRequest,
    IndexingService,
    PreparedDocument,
)
from crawlscope.timing import TimingContext, scope
from crawlscope.vocabulary import OperationType, PageState

INTERNAL_ERROR = "internal_error"

log = structlog.get_logger(__name__)


class PageIndexer:
    """`worker` names the process in the attempts it makes."""

    def __init__(self, database: Database, indexing: IndexingService, worker: str) -> None:
        self._database = database
        self._indexing = indexing
        self._worker = worker

    async def index(self, page_id: int, revision: int, job_id: str) -> None:
        """Settles the page, or puts it back into the queue's hands and raises why."""
        claim = await self._database.run(
            lambda connection: claim_page(connection, page_id, revision, self._worker)
        )
        if claim is None:
            return
        measured: list[TimingContext] = []
        with scope(
            crawl_id=claim.crawl_id,
            job_id=job_id,
            document_url=claim.source_url,
            collect=measured.append,
        ):
            try:
                await self._index(claim, measured)
            except PageError as error:
                await self._set_aside(claim, error.code, str(error), measured)
            except BaseException as error:
                _mark_failed(measured, error)
                await self._put_back(claim, error, measured)
                raise

    async def set_aside(self, page_id: int, revision: int, error: Exception) -> None:
        """Gives a page up that failed in an unexpected way each time it was tried."""
        claim = await self._database.run(
            lambda connection: claim_page(connection, page_id, revision, self._worker)
        )
        if claim:
            await self._set_aside(claim, INTERNAL_ERROR, _words(error), [])

    async def _index(self, claim: ClaimedPage, measured: list[TimingContext]) -> None:
        with TimingContext(OperationType.WORKER, "index_document") as whole:
            whole.metadata["attempt"] = claim.attempt
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
        stored = await self._indexing.store(connection, prepared, claim.crawl_id)
        whole.stop()
        reason = prepared.unreadable
        outcome = Outcome(
            stored.state,
            stored.chunks,
            error_code=reason.code if reason else None,
            error=str(reason) if reason else None,
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
        self, claim: ClaimedPage, error: BaseException, measured: list[TimingContext]
    ) -> None:
        """Best effort: where the database is away too, the next attempt closes this one."""
        code = getattr(error, "code", INTERNAL_ERROR)
        try:
            await self._database.run(
                lambda connection: put_back(connection, claim, code, _words(error), measured)
            )
        except Exception as second:  # noqa: BLE001 - the first error is the one to raise
            log.warning("page_not_put_back", url=claim.source_url, reason=str(second))


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
    return str(error) or type(error).__name__
