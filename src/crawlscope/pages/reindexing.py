"""Fills a new index from the kept pages while another one serves, and changes over when nothing is left."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import CrawlscopeError, DatabaseUnavailable, PageError
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.documents import DocumentToFill, KnownDocument
from crawlscope.indexing.freshness import FACTS, FOUND_AT
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.generations.repository import Generation
from crawlscope.indexing.prepare import DocumentMetadata, IndexDocumentRequest, PreparedDocument, Workshop
from crawlscope.indexing.service import IndexingService
from crawlscope.pages.retry import in_time, pause_seconds, tries_allowed

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


@dataclass
class _Batch:
    made: int = 0
    failures: list[Exception] = field(default_factory=list)

    @property
    def in_vain(self) -> bool:
        """A few documents may fail by themselves; more of them are a sign of a part that works for nobody."""
        return len(self.failures) >= DOCUMENTS_AT_ONCE and not self.made


class Filling:
    """One process fills. A second one that did so too would repeat some of the work and spoil nothing.

    A document that fails by an unexpected error is tried `max_attempts` times, and no try lasts longer than
    `timeout_seconds`, unless a thread does not let itself be stopped.
    """

    def __init__(
        self,
        database: Database,
        opened: OpenGenerations,
        indexing: IndexingService,
        max_attempts: int,
        timeout_seconds: float,
    ) -> None:
        self._database = database
        self._opened = opened
        self._indexing = indexing
        self._max_attempts = max_attempts
        self._timeout_seconds = timeout_seconds
        self._in_vain: Counter[tuple[int, DocumentToFill, str]] = Counter()
        """Tries of a document for an index, by the error's code. Another process begins to count anew."""

    async def fill_when_asked(self) -> None:
        """For ever, beside whatever else a worker does. When the worker that fills dies, another goes on,
        at the document that may have been the reason: nobody counts those deaths against it.
        """
        rounds_in_vain = 0
        while True:
            try:
                await self._fill_if_asked()
                rounds_in_vain = 0
            except CrawlscopeError as error:
                rounds_in_vain += 1
                log.warning("filling_waits", reason=str(error))
            except Exception:
                rounds_in_vain += 1
                log.exception("filling_failed")
            await asyncio.sleep(max(LOOK_SECONDS, pause_seconds(rounds_in_vain)))

    async def _fill_if_asked(self) -> None:
        async with self._database.transaction() as connection:
            filling = (await generations.live(connection)).filling
        if filling:
            async with generations.sole_filler(self._database) as alone:
                if alone:
                    await self.fill(filling.id)

    async def fill(self, generation_id: int) -> None:
        """Returns when that index serves, or is not to be filled any more.

        Raises why it cannot go on now, or why some documents have to be tried again; done again, it goes on
        where it was.
        """
        try:
            while generation := await self._still_filling(generation_id):
                await self._fill_what_is_left(generation)
                if await self._change_over(generation):
                    log.info("index_changed_over", index=generation.name, fingerprint=generation.fingerprint)
                    self._in_vain.clear()
        except Exception as error:
            await self._note(generation_id, _words(error))
            raise

    async def _still_filling(self, generation_id: int) -> Generation | None:
        async with self._database.transaction() as connection:
            filling = (await generations.live(connection)).filling
            return filling if filling and filling.id == generation_id else None

    async def _fill_what_is_left(self, generation: Generation) -> None:
        await self._opened.embedder(generation).ready()
        await self._note(generation.id, None)
        failures: list[Exception] = []
        async for batch in self._batches(generation):
            done = await self._fill_batch(generation, batch)
            failures += done.failures
            if done.in_vain:
                break
        if failures:
            raise failures[0]

    async def _fill_batch(self, generation: Generation, batch: list[DocumentToFill]) -> "_Batch":
        hands, done = asyncio.Semaphore(DOCUMENTS_AT_ONCE), _Batch()
        try:
            async with asyncio.TaskGroup() as tasks:
                for document in batch:
                    tasks.create_task(self._fill_one(generation, document, hands, done))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return done

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
        self, generation: Generation, document: DocumentToFill, hands: asyncio.Semaphore, done: "_Batch"
    ) -> None:
        async with hands:
            if done.in_vain:
                return
            try:
                done.made += await self._make(generation, document)
            except DatabaseUnavailable:
                raise
            except PageError as error:
                await self._keep(generation, document, None, str(error))
            except Exception as error:
                if not isinstance(error, CrawlscopeError):
                    log.exception("document_not_filled", url=document.url)
                if not await self._given_up(generation, document, error):
                    done.failures.append(error)

    async def _make(self, generation: Generation, document: DocumentToFill, *, anew: bool = False) -> bool:
        """Whether anything was to be done; `anew` also for what the index has already."""
        if await self._database.run(partial(self._indexing.drop_if_gone, url=document.url)):
            return True
        async with in_time(self._timeout_seconds):
            prepared = await self._prepare(generation, document, anew)
        await self._keep(generation, document, prepared, None if prepared else NOTHING_KEPT)
        return prepared is not None

    async def _given_up(self, generation: Generation, document: DocumentToFill, error: Exception) -> bool:
        """Leaves a document out that was tried in vain too often, if it is itself the reason."""
        code = error.code if isinstance(error, CrawlscopeError) else ""
        tried = generation.id, document, code
        self._in_vain[tried] += 1
        if self._in_vain[tried] < tries_allowed(error, self._max_attempts):
            return False
        if isinstance(error, CrawlscopeError) and not await self._makes_others(generation):
            return False
        await self._keep(generation, document, None, _words(error))
        log.warning("document_left_out", url=document.url, index=generation.name, reason=_words(error))
        return True

    async def _makes_others(self, generation: Generation) -> bool:
        """Whether all parts work for a document that the index has already."""
        async with self._database.transaction() as connection:
            made = await documents.last_made(connection, generation.id)
        try:
            return made is not None and await self._make(generation, made, anew=True)
        except Exception as error:  # noqa: BLE001 - that it fails is the answer
            log.info("filling_works_for_nobody", reason=_words(error))
            return False

    async def _prepare(
        self, generation: Generation, document: DocumentToFill, anew: bool
    ) -> PreparedDocument | None:
        """None where nothing with text in it is kept."""
        async with self._database.transaction() as connection:
            known = await documents.find_document(connection, generation.id, document.url)
            contents = await _newest_contents(connection, document)
        if anew:
            known = None
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


def _words(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, CrawlscopeError)
        else f"unexpected {type(error).__name__}; see the log"
    )


async def _newest_contents(
    connection: AsyncConnection, document: DocumentToFill
) -> list[IndexDocumentRequest]:
    """What was found last first. Pages that failed brought nothing that an index has."""
    rows = await connection.execute(
        select(PAGES.c.title, PAGES.c.language, CONTENTS.c.markdown)
        .select_from(FACTS.join(CONTENTS, CONTENTS.c.page_id == PAGES.c.id))
        .where(
            PAGES.c.document_key == document.key,
            PAGES.c.delivered,
            PAGES.c.state.not_in([PageState.FAILED, PageState.CANCELLED]),
        )
        .order_by(FOUND_AT.desc(), PAGES.c.webhook_id.desc(), PAGES.c.id.desc())
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
