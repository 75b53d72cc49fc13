"""Fills a new index from the kept pages while another one serves, and changes over when nothing is left."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.database.engine import Database
from crawlscope.errors import CrawlscopeError, DependencyError, PageError, SettingsError
from crawlscope.indexing import documents, generations
from crawlscope.indexing.documents import DocumentToFill, KnownDocument
from crawlscope.indexing.generations import Generation
from crawlscope.indexing.opened import OpenGenerations
from crawlscope.indexing.prepare import DocumentMetadata, IndexDocumentRequest, PreparedDocument, Workshop
from crawlscope.indexing.service import IndexingService
from crawlscope.vocabulary import PageState

CONTENTS = models.table_of(models.PageContent)
PAGES = models.table_of(models.Page)
LOOK_SECONDS = 2.0
DOCUMENTS_AT_ONCE = 4
DOCUMENTS_PER_LOOK = 64
CONTENTS_TRIED = 3
"""Of one document, the newest first: one that is queued may turn out to have no text."""
BEFORE_ALL = UUID(int=0)
NOTHING_KEPT = "no page with its text is kept: crawl it again"

log = structlog.get_logger(__name__)


class Filling:
    """One process fills. A second one that did so too would repeat some of the work and spoil nothing."""

    def __init__(self, database: Database, opened: OpenGenerations, indexing: IndexingService) -> None:
        self._database = database
        self._opened = opened
        self._indexing = indexing

    async def fill_when_asked(self) -> None:
        """For ever, beside whatever else a worker does. When the worker that fills dies, another goes on."""
        while True:
            try:
                await self._fill_if_asked()
            except CrawlscopeError as error:
                log.warning("filling_waits", reason=str(error))
            except Exception:
                log.exception("filling_failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def _fill_if_asked(self) -> None:
        async with self._database.transaction() as connection:
            filling = (await generations.live(connection)).filling
        if filling:
            async with generations.sole_filler(self._database) as alone:
                if alone:
                    await self.fill(filling.id)

    async def fill(self, generation_id: int) -> None:
        """Returns when that index serves, or is not to be filled any more.

        Raises a `CrawlscopeError` where it cannot go on now; done again, it goes on where it was.
        """
        try:
            while generation := await self._still_filling(generation_id):
                await self._fill_what_is_left(generation)
                if await self._change_over(generation):
                    log.info("index_changed_over", index=generation.name, fingerprint=generation.fingerprint)
        except CrawlscopeError as error:
            await self._note(generation_id, str(error))
            raise

    async def _still_filling(self, generation_id: int) -> Generation | None:
        async with self._database.transaction() as connection:
            filling = (await generations.live(connection)).filling
            return filling if filling and filling.id == generation_id else None

    async def _fill_what_is_left(self, generation: Generation) -> None:
        await self._opened.embedder(generation).ready()
        await self._note(generation.id, None)
        async for batch in self._batches(generation):
            await self._fill_batch(generation, batch)

    async def _fill_batch(self, generation: Generation, batch: list[DocumentToFill]) -> None:
        hands = asyncio.Semaphore(DOCUMENTS_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                for document in batch:
                    tasks.create_task(self._fill_one(generation, document, hands))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _batches(self, generation: Generation) -> AsyncIterator[list[DocumentToFill]]:
        after = BEFORE_ALL
        while True:
            async with self._database.transaction() as connection:
                serving = (await generations.live(connection)).serving
                if serving is None:
                    return
                batch = await documents.to_fill(
                    connection, serving.id, generation.id, after, DOCUMENTS_PER_LOOK
                )
            if not batch:
                return
            yield batch
            after = batch[-1].key

    async def _fill_one(
        self, generation: Generation, document: DocumentToFill, hands: asyncio.Semaphore
    ) -> None:
        async with hands:
            try:
                prepared = await self._prepare(generation, document)
            except (DependencyError, SettingsError):
                raise
            except PageError as error:
                await self._keep(generation, document, None, str(error))
            except Exception as error:
                log.exception("document_not_filled", url=document.url)
                await self._keep(
                    generation, document, None, f"unexpected {type(error).__name__}; see the log"
                )
            else:
                await self._keep(generation, document, prepared, None if prepared else NOTHING_KEPT)

    async def _prepare(self, generation: Generation, document: DocumentToFill) -> PreparedDocument | None:
        """None where nothing with text in it is kept."""
        async with self._database.transaction() as connection:
            known = await documents.find_document(connection, generation.id, document.url)
            contents = await _newest_contents(connection, document)
        workshop: Workshop = self._opened.workshop(generation)
        for content in contents:
            prepared = await workshop.prepare(content, known)
            if prepared.text:
                return prepared
        return None

    async def _keep(
        self,
        generation: Generation,
        document: DocumentToFill,
        prepared: PreparedDocument | None,
        error: str | None,
    ) -> None:
        """Unless the document was replaced meanwhile: then it is made again from what it is now."""

        async def keep(connection: AsyncConnection) -> None:
            live = await generations.hold(connection)
            if live.serving is None or live.filling is None or live.filling.id != generation.id:
                return
            await documents.lock_document(connection, document.url)
            source = await documents.find_document(connection, live.serving.id, document.url)
            if source is None or source.revision != document.revision:
                return
            if prepared is None:
                await self._leave_out(connection, generation, document, source, error)
            else:
                await self._put(connection, generation, prepared, source)

        await self._database.run(keep)

    async def _put(
        self,
        connection: AsyncConnection,
        generation: Generation,
        prepared: PreparedDocument,
        source: KnownDocument,
    ) -> None:
        made = KnownDocument(
            prepared.content_hash,
            prepared.fingerprint,
            len(prepared.chunks),
            source.crawl_id,
            source.revision,
        )
        if not prepared.unchanged:
            await self._indexing.put(connection, generation, prepared, made)
        elif known := await documents.find_document(connection, generation.id, prepared.url):
            confirmed = replace(known, crawl_id=source.crawl_id, revision=source.revision)
            await documents.keep_document(connection, generation.id, prepared.url, confirmed)

    async def _leave_out(
        self,
        connection: AsyncConnection,
        generation: Generation,
        document: DocumentToFill,
        source: KnownDocument,
        error: str | None,
    ) -> None:
        nothing = KnownDocument("", "", 0, source.crawl_id, source.revision, error)
        await documents.keep_document(connection, generation.id, document.url, nothing)
        await (await self._opened.index(generation)).cut(document.url, keep=0)

    async def _change_over(self, generation: Generation) -> bool:
        """Where the new index lacks nothing that it should hold; what it lost is made again."""
        async with self._database.transaction() as connection:
            live = await generations.hold_for_change_over(connection)
            if live.serving is None or live.filling is None or live.filling.id != generation.id:
                return False
            if await documents.to_fill(connection, live.serving.id, generation.id, BEFORE_ALL, 1):
                return False
            wanted = (await generations.holding(connection, generation.id)).chunks
            found = (await (await self._opened.index(generation)).size()).chunks
            if found < wanted:
                log.warning("filled_index_lacks_chunks", index=generation.name, wanted=wanted, found=found)
                await documents.refill(connection, generation.id)
                return False
            await generations.change_over(connection, generation.id)
            return True

    async def _note(self, generation_id: int, problem: str | None) -> None:
        async with self._database.transaction() as connection:
            await generations.note_problem(connection, generation_id, problem)


async def _newest_contents(
    connection: AsyncConnection, document: DocumentToFill
) -> list[IndexDocumentRequest]:
    """What was received last first. Pages that failed brought nothing that an index has."""
    rows = await connection.execute(
        select(PAGES.c.title, PAGES.c.language, CONTENTS.c.markdown)
        .join(CONTENTS, CONTENTS.c.page_id == PAGES.c.id)
        .where(
            PAGES.c.document_key == document.key,
            PAGES.c.delivered,
            PAGES.c.state.not_in([PageState.FAILED, PageState.CANCELLED]),
        )
        .order_by(PAGES.c.received_at.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc())
        .limit(CONTENTS_TRIED)
    )
    return [
        IndexDocumentRequest(
            url=document.url,
            markdown=row.markdown,
            metadata=DocumentMetadata(url=document.url, title=row.title, language=row.language),
        )
        for row in rows
    ]
