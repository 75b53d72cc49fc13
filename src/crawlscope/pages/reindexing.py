"""Builds a new index from the stored contents while another one serves, and switches to it at the end."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError, DatabaseUnavailable, IndexUnavailable, PageError
from crawlscope.core.periodic import run_periodically
from crawlscope.database.engine import Database
from crawlscope.indexing import contents, documents
from crawlscope.indexing.documents import DocumentToReindex, KnownDocument
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.generations.repository import Generation
from crawlscope.indexing.index.port import IndexedDocument, chunk_id
from crawlscope.indexing.prepare import PreparedDocument
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest
from crawlscope.indexing.service import IndexingService
from crawlscope.pages.delivered import markdown_of
from crawlscope.pages.index_page import in_time
from crawlscope.pages.repository import newest_contents
from crawlscope.pages.retry import max_failures, retry_seconds

POLL_INTERVAL_SECONDS = 2.0
IDLE_SECONDS = 10.0
"""Between two looks for a requested index while none is: each request is notified."""
DOCUMENTS_AT_ONCE = 4
BATCH_DOCUMENTS = 64
MAX_CONTENTS = 3
"""The maximum for one document, the newest first: a queued page may turn out to have no text."""
BEFORE_ALL = UUID(int=0)
NOTHING_KEPT = "its text is not stored: crawl or index it again"

log = structlog.get_logger(__name__)


@dataclass
class _Batch:
    made: int = 0
    failures: list[Exception] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """A few documents may be faulty; more failures are a sign of a dependency that works for none."""
        return len(self.failures) >= DOCUMENTS_AT_ONCE and not self.made


class Reindexing:
    """One process builds an index. A second one would repeat some of the work and spoil nothing.

    `max_attempts` at a document may fail by an unexpected error, and no attempt lasts longer than
    `timeout_seconds`, unless a thread cannot be stopped.
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
        self._failures: Counter[tuple[int, DocumentToReindex, str]] = Counter()
        """Failed attempts at a document of an index, by error code. Another process counts from 0."""

    async def run(self, news: asyncio.Event) -> None:
        """Builds each index that is requested, until cancelled. `news` is set when one is.

        When the worker that builds it dies, another one continues, also with a document that may have been
        the cause: those deaths are not counted.
        """

        async def build_if_requested() -> float:
            async with self._database.transaction() as connection:
                replacement = (await generations.live(connection)).replacement
            if replacement:
                async with generations.reindexing_lock(self._database) as alone:
                    if alone:
                        await self.build(replacement.id)
            return POLL_INTERVAL_SECONDS if replacement else IDLE_SECONDS

        await run_periodically(
            build_if_requested,
            interval_seconds=lambda seconds: seconds,
            retry_seconds=lambda failures: max(POLL_INTERVAL_SECONDS, retry_seconds(failures)),
            failure_event="reindexing_failed",
            news=news,
        )

    async def build(self, generation_id: int) -> None:
        """Returns when that index serves, or is no longer requested.

        Raises the error that stops it, or that of documents which must be tried again. The next call
        continues where this one stopped.
        """
        try:
            while True:
                async with self._database.transaction() as connection:
                    live = await generations.live(connection)
                await self._opened.close_others(live)
                generation = live.replacement
                if generation is None or generation.id != generation_id:
                    return
                await self._build_rest(generation)
                if await self._switch(generation):
                    log.info("index_switched", index=generation.name, fingerprint=generation.fingerprint)
                    self._failures.clear()
        except Exception as error:
            await self._note(generation_id, _words(error))
            raise

    async def _build_rest(self, generation: Generation) -> None:
        await self._opened.embedder(generation).ready()
        await self._note(generation.id, None)
        failures: list[Exception] = []
        after = BEFORE_ALL
        while True:
            async with self._database.transaction() as connection:
                serving = (await generations.live(connection)).serving
                left = serving and await documents.to_reindex(
                    connection, serving.id, generation.id, after, BATCH_DOCUMENTS
                )
            if not left:
                break
            batch, at_once = _Batch(), asyncio.Semaphore(DOCUMENTS_AT_ONCE)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for document in left:
                        tasks.create_task(self._build_one(generation, document, at_once, batch))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            failures += batch.failures
            if batch.fails:
                break
            after = left[-1].key
        if failures:
            raise failures[0]

    async def _build_one(
        self, generation: Generation, document: DocumentToReindex, at_once: asyncio.Semaphore, batch: _Batch
    ) -> None:
        async with at_once:
            if batch.fails:
                return
            try:
                batch.made += await self._make(generation, document)
            except DatabaseUnavailable:
                raise
            except PageError as error:
                await self._keep(generation, document, None, str(error))
            except Exception as error:
                if not isinstance(error, CrawlscopeError):
                    log.exception("document_reindexing_failed", url=document.url)
                if not await self._given_up(generation, document, error):
                    batch.failures.append(error)

    async def _make(
        self, generation: Generation, document: DocumentToReindex, *, again: bool = False
    ) -> bool:
        """False if no text is stored; `again` also indexes a document that the index already has."""
        if await self._database.run(partial(self._indexing.remove_if_gone, urls=[document.url])):
            return True
        recovered = None
        async with in_time(self._timeout_seconds):
            async with self._database.transaction() as connection:
                made = await documents.find_documents(connection, generation.id, [document.url])
                brought = await contents.find_content(connection, document.url, document.revision)
                requests = [brought] if brought else await _requests_of_pages(connection, document)
            known = None if again else made.get(document.url)
            prepared = await self._prepare(generation, requests, known)
            if prepared is None and (recovered := await self._recover(generation, document)):
                prepared = await self._prepare(generation, [recovered], known)
        await self._keep(generation, document, prepared, None if prepared else NOTHING_KEPT, recovered)
        return prepared is not None

    async def _prepare(
        self,
        generation: Generation,
        requests: Iterable[IndexDocumentRequest],
        known: KnownDocument | None,
    ) -> PreparedDocument | None:
        """The first one that has text."""
        for request in requests:
            async with self._opened.preparer(generation) as preparer:
                prepared = await preparer.prepare(request, known)
            if prepared.text:
                return prepared
        return None

    async def _recover(
        self, generation: Generation, document: DocumentToReindex
    ) -> IndexDocumentRequest | None:
        """The text from the chunks of the serving index: versions before 0028 stored what programs brought
        nowhere else. Most documents get the same chunks from it; a table or code that was cut has its head
        more than once."""
        async with self._database.transaction() as connection:
            serving = (await generations.live(connection)).serving
        ids = [chunk_id(document.url, number) for number in range(document.chunks)]
        if serving is None or not ids:
            return None
        try:
            chunks = await (await self._opened.index(serving)).payloads(ids)
        except IndexUnavailable:
            await (await self._opened.index(generation)).require_writable()  # then only the old one is lost
            return None
        if len(chunks) < len(ids):
            return None
        title, language = chunks[ids[0]]["title"], chunks[ids[0]]["language"]
        return IndexDocumentRequest(
            url=document.url,
            markdown="\n\n".join(chunks[one]["text"] for one in ids),
            metadata=DocumentMetadata(url=document.url, title=title, language=language),
        )

    async def _given_up(self, generation: Generation, document: DocumentToReindex, error: Exception) -> bool:
        """Leaves out a document with too many failed attempts, if it is itself the cause."""
        code = error.code if isinstance(error, CrawlscopeError) else ""
        failed = generation.id, document, code
        self._failures[failed] += 1
        if self._failures[failed] < max_failures(error, self._max_attempts):
            return False
        if isinstance(error, CrawlscopeError):  # do all dependencies work for a document that it has already?
            async with self._database.transaction() as connection:
                made = await documents.latest_stored(connection, generation.id)
            try:
                if made is None or not await self._make(generation, made, again=True):
                    return False
            except Exception as probed:  # noqa: BLE001 - that it fails is the answer
                log.info("reindexing_probe_failed", reason=_words(probed))
                return False
        await self._keep(generation, document, None, _words(error))
        log.warning("document_skipped", url=document.url, index=generation.name, reason=_words(error))
        return True

    async def _keep(
        self,
        generation: Generation,
        document: DocumentToReindex,
        prepared: PreparedDocument | None,
        error: str | None,
        recovered: IndexDocumentRequest | None = None,
    ) -> None:
        """Puts the document into the index, or leaves it out for `error`. Stores what was `recovered`.

        Does neither if the document was replaced meanwhile: then it is indexed again from its new content.
        """

        url = document.url

        async def keep(connection: AsyncConnection) -> None:
            live = await generations.lock_shared(connection, [url])
            if live.serving is None or live.replacement is None or live.replacement.id != generation.id:
                return
            source = live.documents.get(url)
            if source is None or source.revision != document.revision:
                return
            if prepared and prepared.unchanged:
                known = await documents.find_documents(connection, generation.id, [url])
                kept = {
                    url: replace(each, crawl_id=source.crawl_id, revision=source.revision)
                    for url, each in known.items()
                }
                await documents.save_documents(connection, generation.id, kept)
                return
            made = KnownDocument("", "", 0, source.crawl_id, "", source.revision, error)
            indexed = IndexedDocument(url)
            if prepared:
                made = replace(
                    made,
                    content_hash=prepared.content_hash,
                    fingerprint=prepared.fingerprint,
                    chunks=len(prepared.document.texts),
                    language=prepared.text_language,
                )
            found_by = await documents.save_documents(connection, generation.id, {url: made}, {url: None})
            if prepared and recovered:
                await contents.save_content(connection, recovered, source.revision, source.crawl_id)
            if prepared:
                indexed = replace(prepared.document, crawl_ids=found_by[url].crawl_ids)
            await (await self._opened.index(generation)).replace([indexed])

        await self._database.run(keep)

    async def _switch(self, generation: Generation) -> bool:
        """Switches to the new index if it is complete; documents that it lost are indexed again."""
        async with self._database.transaction() as connection:
            live = await generations.lock_exclusively(connection)
            if live.serving is None or live.replacement is None or live.replacement.id != generation.id:
                return False
            if await documents.to_reindex(connection, live.serving.id, generation.id, BEFORE_ALL, 1):
                return False
            wanted = (await documents.count(connection, generation.id)).chunks
            found = (await (await self._opened.index(generation)).size()).chunks
            if found < wanted:
                log.warning("new_index_chunks_lost", index=generation.name, wanted=wanted, found=found)
                await documents.restart_reindexing(connection, generation.id)
                return False
            await generations.switch(connection, generation.id)
            return True

    async def _note(self, generation_id: int, problem: str | None) -> None:
        async with self._database.transaction() as connection:
            await generations.set_problem(connection, generation_id, problem)


async def _requests_of_pages(
    connection: AsyncConnection, document: DocumentToReindex
) -> Iterator[IndexDocumentRequest]:
    """The newest first."""
    rows = await newest_contents(connection, document.key, MAX_CONTENTS)
    return (
        IndexDocumentRequest(
            url=document.url,
            markdown=markdown_of(row) or "",
            metadata=DocumentMetadata(url=document.url, title=row["title"], language=row["language"]),
        )
        for row in rows
    )


def _words(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, CrawlscopeError)
        else f"unexpected {type(error).__name__}; see the log"
    )
