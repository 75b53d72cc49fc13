"""A changed embedder or a lost index: searches continue during a reindexing, and no document is missing
afterwards."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from sqlalchemy import delete, func, select, text

from crawlscope.core.errors import CrawlscopeError, EmbedderUnavailable, IndexUnavailable
from crawlscope.core.settings import Settings
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import PageState
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.indexing import contents, documents
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.lifecycle import IndexLifecycle
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import OwnedIndexes, SparseVector
from crawlscope.indexing.index.qdrant_server import QdrantIndexes
from crawlscope.indexing.service import (
    DocumentChanged,
    FoundDocument,
    IndexChanged,
    IndexDocumentRequest,
    IndexingService,
)
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.models import Document, DocumentContent, Page
from crawlscope.pages.index_page import PageIndexer, PutBack
from crawlscope.pages.reindexing import NOTHING_KEPT, Reindexing
from crawlscope.search.schemas import Mode, SearchFilters, SearchRequest, SearchResponse
from crawlscope.search.service import SearchService
from crawlscope.timing import standalone
from crawlscope.timing.store import MeasurementBuffer
from tests.support.data_folders import share_cache
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.installation import change_chunking
from tests.support.producing import deliver

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

TOPICS = ("apples", "bridges", "comets", "dunes", "engines", "forests")


def url_of(topic: str) -> str:
    return f"https://a.example/{topic}"


def text_of(topic: str, more: str = "") -> str:
    return f"# All about {topic}\n\n" + " ".join(f"Sentence {n} speaks of {topic}." for n in range(80)) + more


class Process:
    """The service and a worker in one, with shared indexes."""

    def __init__(self, database: Database, indexes: OwnedIndexes, settings: Settings) -> None:
        self.database = database
        self.indexes = indexes
        self.opened = OpenGenerations(settings, indexes, Bm25Encoder())
        self.lifecycle = IndexLifecycle(database, indexes)
        self.indexing = IndexingService(database, self.opened)
        self.reindexing = Reindexing(database, self.opened, self.indexing, 3, timeout_seconds=60)

    async def start(self) -> "Process":
        await self.opened.ensure_serving(self.database)
        await self.lifecycle.advance()
        return self

    async def crawl(self, crawl_id: str, *topics: str, more: str = "") -> None:
        for topic in topics:
            metadata = {"sourceURL": url_of(topic), "url": url_of(topic), "statusCode": 200, "language": "en"}
            page = {"markdown": text_of(topic, more), "metadata": metadata}
            await deliver(self.database, crawl_id, "crawl.page", [page])
        await self.index_what_waits(crawl_id)

    async def index_what_waits(self, crawl_id: str) -> None:
        indexer = PageIndexer(self.database, self.indexing, "worker-1", max_attempts=5, timeout_seconds=60)
        for job in await self._waiting(crawl_id):
            try:
                await indexer.index(*job)
            except PutBack as again:
                if not isinstance(again.error, IndexChanged):
                    raise again.error from None
                await indexer.index(*job)  # as the queue would bring it again

    async def _waiting(self, crawl_id: str) -> list[tuple[int, int, int]]:
        """Page, revision and job, as the queue has them."""
        waiting = select(Page.id, Page.revision, Page.job_id).where(
            Page.crawl_id == crawl_id, Page.state == PageState.QUEUED
        )
        async with self.database.transaction() as connection:
            return [(row.id, row.revision, row.job_id) for row in await connection.execute(waiting)]

    async def index(self, topic: str) -> None:
        """As a program does it."""
        document = IndexDocumentRequest(url=url_of(topic), markdown=text_of(topic))
        await self.indexing.index_document(document)

    async def search(self, query: str, mode: Mode = "hybrid", crawl_id: str | None = None) -> SearchResponse:
        serving = await self.serving()
        service = SearchService(
            await self.opened.index(serving), self.opened.embedder(serving), Bm25Encoder()
        )
        filters = SearchFilters(crawl_id=crawl_id) if crawl_id else None
        return await service.search(SearchRequest(query=query, mode=mode, limit=100, filters=filters))

    async def found(self, query: str = "speaks", **options: Any) -> set[str]:
        return {result.url for result in (await self.search(query, **options)).results}

    async def begin(self) -> Generation:
        recipe = await self.opened.open_configured()
        await self.database.run(lambda connection: generations.begin_reindexing(connection, recipe))
        replacement = (await self.lifecycle.advance()).replacement
        assert replacement is not None
        return replacement

    async def reindex(self) -> None:
        await self.reindexing.build((await self.begin()).id)
        await self.lifecycle.advance()

    async def live(self) -> Live:
        async with self.database.transaction() as connection:
            return await generations.live(connection)

    async def serving(self) -> Generation:
        serving = (await self.live()).serving
        assert serving is not None
        return serving

    async def holding(self) -> tuple[int, int, int]:
        """Documents and chunks as the database says, chunks as the index does."""
        serving = await self.serving()
        async with self.database.transaction() as connection:
            held = await documents.count(connection, serving.id)
        return held.documents, held.chunks, (await (await self.opened.index(serving)).size()).chunks


Start = Callable[..., Awaitable[Process]]


@pytest.fixture(params=["edge", "qdrant"])
async def indexes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OwnedIndexes]:
    opened: OwnedIndexes = (
        EdgeIndexes(tmp_path) if request.param == "edge" else QdrantIndexes(AsyncQdrantClient(":memory:"))
    )
    yield opened
    await opened.aclose()


@pytest.fixture(autouse=True)
async def measured(database: Database) -> AsyncIterator[None]:
    """Reindexing is measured too."""
    buffer = MeasurementBuffer(database)
    buffer.start()
    with standalone.use(buffer):
        yield
    await buffer.stop()


@pytest.fixture
def old() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer(model="fake/old") as server:
        yield server


@pytest.fixture
def new() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer(model="fake/new", salt="new") as server:
        yield server


def settings_for(server: FakeEmbeddingServer, folder: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, data_dir=folder, embedder="tei", embedder_url=server.url, **more)


@pytest.fixture
async def start(database: Database, indexes: OwnedIndexes, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts processes with the embedder at a server, and closes it after the test."""
    share_cache(tmp_path)
    async with AsyncExitStack() as started:

        async def start_one(server: FakeEmbeddingServer, **more: Any) -> Process:
            process = Process(database, indexes, settings_for(server, tmp_path, **more))
            started.push_async_callback(process.opened.aclose)
            return await process.start()

        yield start_one


@pytest.fixture
async def before(start: Start, old: FakeEmbeddingServer) -> Process:
    """With the old embedder, and two crawls indexed."""
    process = await start(old)
    await process.crawl("crawl-1", *TOPICS)
    await process.crawl("crawl-2", *TOPICS[:2])
    return process


@pytest.fixture
async def after(before: Process, start: Start, new: FakeEmbeddingServer) -> Process:
    """The same after a restart with the new embedder configured."""
    return await start(new)


async def scores(process: Process, query: str) -> dict[str, float]:
    """The scores of a semantic search, which depend on the embedder alone."""
    results = (await process.search(query, mode="semantic")).results
    return {result.url: round(result.score, 4) for result in results}


async def test_before_reindexing_the_index_is_used_with_the_embedder_that_built_it(
    before: Process, after: Process, old: FakeEmbeddingServer, new: FakeEmbeddingServer
) -> None:
    new.requests.clear()
    expected = await scores(before, "apples")
    assert await scores(after, "apples") == expected
    await after.crawl("crawl-3", "glaciers")
    assert url_of("glaciers") in await after.found("glaciers", mode="semantic")
    assert {text for request in new.requests for text in request.texts} <= {"dimension"}
    notice = after.opened.embedder(await after.serving()).notice
    assert notice is not None
    assert "built with tei fake/old (64 dimensions)" in notice
    assert "tei is configured" in notice
    assert "`crawlscope reindex`" in notice


async def test_the_new_index_serves_with_all_documents_of_the_old_one(
    before: Process, after: Process, old: FakeEmbeddingServer, new: FakeEmbeddingServer
) -> None:
    held = await before.holding()
    assert held[0] == len(TOPICS)
    assert held[1] == held[2] > 2 * len(TOPICS)
    filtered = {crawl: await before.found(crawl_id=crawl) for crawl in ("crawl-1", "crawl-2")}
    old_scores = await scores(before, "apples")

    await after.reindex()

    assert await after.holding() == held
    assert {crawl: await after.found(crawl_id=crawl) for crawl in filtered} == filtered
    old.requests.clear()
    new.requests.clear()
    results = (await after.search("apples", mode="semantic")).results
    assert ([request.texts for request in new.requests], old.requests) == ([["apples"]], [])
    assert {hit.url: round(hit.score, 4) for hit in results} != old_scores
    cosine = np.dot(new.vector("apples"), new.vector(f"{results[0].title}\n\n{results[0].text}"))
    # The chunk's vector has a share of the page's others.
    assert results[0].score == pytest.approx(float(cosine), abs=0.03)
    assert after.opened.embedder(await after.serving()).notice is None
    live = await after.live()
    assert live.replacement is None
    assert live.serving is not None
    assert live.serving.name == "index-2"


async def test_an_index_of_an_older_version_is_reindexed(
    before: Process, start: Start, old: FakeEmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await before.holding()
    change_chunking(monkeypatch)
    upgraded = await start(old)
    replacement = (await upgraded.live()).replacement
    assert replacement is not None
    assert ":999:" in replacement.fingerprint
    assert await upgraded.found("apples") == await before.found("apples")
    await upgraded.reindexing.build(replacement.id)
    live = await upgraded.lifecycle.advance()
    assert live.replacement is None
    assert live.serving is not None
    assert live.serving.fingerprint == replacement.fingerprint
    assert await upgraded.holding() == held


@pytest.mark.parametrize("is_stored", [True, False])
async def test_documents_of_programs_are_reindexed(
    before: Process,
    start: Start,
    old: FakeEmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_stored: bool,
) -> None:
    await before.index("glaciers")
    if not is_stored:
        await forget_contents(before.database)
    held = await before.holding()
    change_chunking(monkeypatch)
    upgraded = await start(old)
    replacement = (await upgraded.live()).replacement
    assert replacement is not None
    await upgraded.reindexing.build(replacement.id)
    assert await upgraded.holding() == held
    assert url_of("glaciers") in await upgraded.found("glaciers")
    async with before.database.transaction() as connection:
        assert await contents.find_content(connection, url_of("glaciers"), 1)


async def forget_contents(database: Database) -> None:
    """Versions before did not store what programs brought."""
    async with database.transaction() as connection:
        await connection.execute(delete(DocumentContent))


async def search_until(done: asyncio.Event, process: Process) -> int:
    """Returns how many searches there were; all found something."""
    searches = 0
    while not done.is_set():
        assert await process.found("speaks")
        searches += 1
    return searches


async def test_searches_and_changes_during_reindexing_are_right(
    after: Process, new: FakeEmbeddingServer
) -> None:
    new.delay_seconds = 0.3
    done = asyncio.Event()
    searching = asyncio.create_task(search_until(done, after))
    replacement = await after.begin()
    async with asyncio.TaskGroup() as work:
        work.create_task(after.reindexing.build(replacement.id))
        work.create_task(after.crawl("crawl-3", "glaciers", "apples"))
        work.create_task(after.crawl("crawl-4", "comets", more="\n\nSomething new of comets: perihelion."))
        work.create_task(
            after.database.run(lambda connection: delete_crawl(connection, "crawl-2", after.indexing))
        )
    done.set()
    assert await searching > 5

    assert (await after.serving()).name == "index-2"
    assert await after.found() == {url_of(topic) for topic in (*TOPICS, "glaciers")}
    assert await after.found(crawl_id="crawl-2") == set()
    assert await after.found(crawl_id="crawl-3") == {url_of("glaciers"), url_of("apples")}
    assert await after.found("perihelion", mode="keyword") == {url_of("comets")}
    documents, chunks, indexed = await after.holding()
    assert (documents, chunks) == (len(TOPICS) + 1, indexed)


async def test_a_document_removed_during_reindexing_is_not_in_the_new_index(
    after: Process, new: FakeEmbeddingServer
) -> None:
    replacement = await after.begin()
    await after.reindexing._build_rest(replacement)  # everything but the switch
    metadata = {"sourceURL": url_of("dunes"), "url": url_of("dunes"), "statusCode": 200}
    await deliver(after.database, "crawl-5", "crawl.page", [{"markdown": "", "metadata": metadata}])
    await after.index_what_waits("crawl-5")
    await after.reindexing.build(replacement.id)
    assert url_of("dunes") not in await after.found()
    assert (await after.holding())[0] == len(TOPICS) - 1


async def test_reindexing_continues_after_a_kill(
    after: Process, start: Start, new: FakeEmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.pages.reindexing.DOCUMENTS_AT_ONCE", 1)
    replacement = await after.begin()
    new.fail_after = 3
    with pytest.raises(EmbedderUnavailable):
        await after.reindexing.build(replacement.id)
    halfway = (await after.live()).replacement
    assert halfway is not None
    assert "told to fail" in str(halfway.problem)
    made = embedded_texts(new)
    new.fail_after = None
    new.requests.clear()

    another = await start(new)
    await another.reindexing.build(replacement.id)
    again = embedded_texts(new)
    assert len(made - again) >= 3, "three documents were made before, and are not made again"
    documents, chunks, indexed = await another.holding()
    assert (documents, chunks) == (len(TOPICS), indexed)
    await another.reindexing.build(replacement.id)  # a job that is delivered twice
    assert (await another.serving()).id == replacement.id


def embedded_texts(server: FakeEmbeddingServer) -> set[str]:
    return {text for request in server.requests for text in request.texts if text.startswith("All about")}


async def test_two_requests_begin_one_reindexing(after: Process) -> None:
    first, second = await after.begin(), await after.begin()
    assert first.id == second.id


async def test_another_embedder_during_reindexing_replaces_the_new_index(
    after: Process, start: Start, old: FakeEmbeddingServer
) -> None:
    first = await after.begin()
    other = await start(old, chunk_tokens=64)
    second = await other.begin()
    assert second.id != first.id
    await after.reindexing.build(first.id)
    assert (await after.live()).replacement == second
    await other.reindexing.build(second.id)
    assert (await other.serving()).recipe.chunk_tokens == 64
    assert (await other.holding())[1] > 2 * (await after.holding())[0]


async def test_a_page_prepared_for_the_old_index_is_not_stored_in_the_new_one(
    before: Process, after: Process
) -> None:
    request = IndexDocumentRequest(url=url_of("late"), markdown=text_of("late"))
    prepared = await before.indexing.prepare(request)
    await after.reindex()
    async with before.database.transaction() as connection:
        [outcome] = await before.indexing.store(connection, [FoundDocument(prepared, "crawl-1")])
    assert isinstance(outcome, IndexChanged)
    assert IndexChanged.retryable
    assert DocumentChanged.retryable
    await before.indexing.index_document(request)
    assert url_of("late") in await after.found("late")


async def test_without_the_old_embedder_keyword_search_works_and_other_modes_name_the_remedy(
    after: Process, old: FakeEmbeddingServer
) -> None:
    old.stop()
    assert await after.found("apples", mode="keyword") == {url_of("apples")}
    for search in (after.search("apples"), after.crawl("crawl-3", "glaciers")):
        with pytest.raises(
            EmbedderUnavailable, match=r"fake/old .* cannot be opened .* `crawlscope reindex`"
        ):
            await search
    await after.reindex()
    await after.index_what_waits("crawl-3")
    assert url_of("glaciers") in await after.found("glaciers", mode="semantic")


async def test_documents_that_the_new_embedder_refuses_are_left_out_and_counted(
    after: Process, new: FakeEmbeddingServer, database: Database
) -> None:
    new.refuses = "dunes"
    await after.reindex()
    assert await after.found() == {url_of(topic) for topic in TOPICS if topic != "dunes"}
    async with database.transaction() as connection:
        held = await documents.count(connection, (await after.serving()).id)
    errors = await errors_of(database)
    assert errors.keys() == {url_of("dunes")}
    assert "maximum context length" in (errors[url_of("dunes")] or "")
    assert (held.documents, held.failed) == (len(TOPICS) - 1, 1)


async def errors_of(database: Database) -> dict[str, str | None]:
    """The reasons of the documents that were left out, by their URLs."""
    failed = select(Document.url, Document.error).where(Document.error.is_not(None))
    async with database.transaction() as connection:
        return {row.url: row.error for row in await connection.execute(failed)}


async def fail_to_fill(process: Process, replacement: Generation, times: int) -> None:
    for _ in range(times):
        with pytest.raises((CrawlscopeError, MemoryError)):
            await process.reindexing.build(replacement.id)


async def test_a_document_that_fails_in_every_attempt_is_left_out(
    after: Process, new: FakeEmbeddingServer
) -> None:
    new.broken_by = "comets"
    replacement = await after.begin()
    await fail_to_fill(after, replacement, 1)
    assert (await (await after.opened.index(replacement)).size()).chunks > 0, "the others are made meanwhile"
    await fail_to_fill(after, replacement, 18)
    await after.reindexing.build(replacement.id)
    assert await after.found() == {url_of(topic) for topic in TOPICS if topic != "comets"}
    assert (await after.holding())[0] == len(TOPICS) - 1


async def test_no_document_is_left_out_while_the_embedder_is_unavailable(
    after: Process, new: FakeEmbeddingServer
) -> None:
    replacement = await after.begin()
    new.fail_after = 3
    await fail_to_fill(after, replacement, 25)
    new.fail_after = None
    await after.reindexing.build(replacement.id)
    assert await after.found() == {url_of(topic) for topic in TOPICS}


@pytest.mark.parametrize("indexes", ["edge"], indirect=True)
@pytest.mark.parametrize("passes", [True, False])
async def test_an_unexpected_error_is_retried_before_the_document_is_left_out(
    after: Process, monkeypatch: pytest.MonkeyPatch, *, passes: bool
) -> None:
    replacement, encode, short_of_memory = await after.begin(), Bm25Encoder.encode_documents, True

    def encode_if_there_is_memory(
        self: Bm25Encoder, chunks: Sequence[str], language: str
    ) -> list[SparseVector]:
        if short_of_memory and any("comets" in chunk for chunk in chunks):
            raise MemoryError
        return encode(self, chunks, language)

    monkeypatch.setattr(Bm25Encoder, "encode_documents", encode_if_there_is_memory)
    await fail_to_fill(after, replacement, 2)
    short_of_memory = not passes
    await after.reindexing.build(replacement.id)
    assert await after.found() == {url_of(topic) for topic in TOPICS if passes or topic != "comets"}


@pytest.mark.parametrize("indexes", ["edge"], indirect=True)
async def test_a_document_that_times_out_in_every_attempt_is_left_out(
    after: Process, new: FakeEmbeddingServer
) -> None:
    after.reindexing = Reindexing(after.database, after.opened, after.indexing, 3, timeout_seconds=1.0)
    replacement = await after.begin()
    new.stuck_on = "comets"
    await fail_to_fill(after, replacement, 2)
    await after.reindexing.build(replacement.id)
    new.stuck_on = None
    assert await after.found() == {url_of(topic) for topic in TOPICS if topic != "comets"}


@pytest.mark.parametrize("misbehaviour", ["answer_nan", "answer_html", "wrong_dimension", "drop_last"])
async def test_wrong_vectors_reach_no_index(
    after: Process, old: FakeEmbeddingServer, new: FakeEmbeddingServer, misbehaviour: str
) -> None:
    held = await after.holding()
    replacement = await after.begin()
    for server in (old, new):
        setattr(server, misbehaviour, True)
    with pytest.raises(EmbedderUnavailable):
        await after.crawl("crawl-3", "glaciers")
    with pytest.raises(EmbedderUnavailable):
        await after.reindexing.build(replacement.id)
    assert await after.holding() == held
    assert (await (await after.opened.index(replacement)).size()).chunks == 0


async def test_an_empty_index_changes_to_the_configured_embedder_at_once(
    start: Start, old: FakeEmbeddingServer, new: FakeEmbeddingServer
) -> None:
    await start(old)
    later = await start(new)
    assert (await later.serving()).recipe.identity.model == "fake/new"
    await later.crawl("crawl-1", *TOPICS)
    assert await later.found() == {url_of(topic) for topic in TOPICS}


async def test_the_old_index_is_dropped_when_searches_no_longer_use_it(
    after: Process, indexes: OwnedIndexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = await after.opened.index(await after.serving())
    await after.reindex()
    assert (await former.size()).chunks > 0
    monkeypatch.setattr("crawlscope.indexing.generations.lifecycle.DROP_AFTER_SECONDS", 0.0)
    await after.lifecycle.advance()
    with pytest.raises((IndexUnavailable, ValueError)):  # the latter is the in-memory server's 404
        await former.size()
    assert not (tmp_path / "index").exists()
    assert await after.found() == {url_of(topic) for topic in TOPICS}


async def until_waiting_for_a_lock(database: Database) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(3000):
        async with database.transaction() as connection:
            if await connection.scalar(waiting):
                return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("indexes", ["edge"], indirect=True)
async def test_an_index_is_dropped_while_a_crawl_is_deleted(after: Process) -> None:
    topics = sorted(TOPICS, key=lambda topic: hash_key(url_of(topic)))
    await after.crawl("crawl-3", *reversed(topics), more=" And more.")  # so they lie in the table
    former = await after.serving()
    await after.reindex()
    urls = list(map(url_of, topics))
    async with after.database.transaction() as deleting:
        await documents.delete_documents(deleting, urls[:1])
        dropping = asyncio.create_task(drop_as_from_a_large_table(after.database, former))
        await until_waiting_for_a_lock(after.database)
        await documents.delete_documents(deleting, urls[:0:-1])
    await dropping
    async with after.database.transaction() as connection:
        assert await generations.retired(connection, 0.0) == []
        assert await connection.scalar(select(func.count()).select_from(Document)) == 0


async def drop_as_from_a_large_table(database: Database, generation: Generation) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL enable_indexscan = off"))
        await connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        await generations.mark_dropped(connection, generation.id)


@pytest.mark.parametrize("indexes", ["edge"], indirect=True)
async def test_a_document_that_shrinks_during_the_check_is_no_loss(
    before: Process, indexes: OwnedIndexes
) -> None:
    started_now = IndexLifecycle(before.database, indexes)
    prepared = await before.indexing.prepare(
        IndexDocumentRequest(url=url_of("apples"), markdown="Short now.")
    )
    async with before.database.transaction() as connection:
        await before.indexing.store(connection, [FoundDocument(prepared, "crawl-1")])
        looking = asyncio.create_task(started_now.advance())
        await until_waiting_for_a_lock(before.database)
    await looking
    assert (await before.serving()).problem is None
    await before.crawl("crawl-3", *TOPICS[1:])
    async with before.database.transaction() as connection:
        states = await connection.scalars(select(Page.state).where(Page.crawl_id == "crawl-3"))
        assert set(states) == {PageState.UNCHANGED}


@asynccontextmanager
async def lost(indexes: OwnedIndexes, folder: Path, pattern: str) -> AsyncIterator[None]:
    """Deletes files of the index while no process has it open."""
    await indexes.aclose()
    for path in (folder / "index").glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    yield


@pytest.mark.parametrize("indexes", ["edge"], indirect=True)
@pytest.mark.parametrize("pattern", ["*", "segments/*"])
async def test_an_embedded_index_that_lost_chunks_is_reported_and_rebuilt(
    before: Process,
    start: Start,
    indexes: OwnedIndexes,
    old: FakeEmbeddingServer,
    tmp_path: Path,
    pattern: str,
) -> None:
    held = await before.holding()
    async with lost(indexes, tmp_path, pattern):
        process = await start(old)
    serving = await process.serving()
    assert serving.problem == f"the index holds 0 of {held[1]} chunks: run `crawlscope reindex`"
    await process.crawl("crawl-7", "apples")
    assert await process.found("apples") == {url_of("apples")}, "it is no unchanged page"
    await process.reindex()
    assert await process.holding() == held
    assert (await process.serving()).problem is None


@pytest.mark.parametrize("indexes", ["edge"], indirect=True)
async def test_a_damaged_embedded_index_is_reported_and_rebuilt(
    before: Process, start: Start, indexes: OwnedIndexes, old: FakeEmbeddingServer, tmp_path: Path
) -> None:
    held = await before.holding()
    await before.index("own")
    await forget_contents(before.database)
    await indexes.aclose()
    (tmp_path / "index/edge_config.json").write_bytes(b"\0")
    process = await start(old)
    with pytest.raises(IndexUnavailable, match="cannot be read: run `crawlscope reindex`"):
        await process.search("apples")
    await process.reindex()
    assert await process.holding() == held
    assert await errors_of(before.database) == {url_of("own"): NOTHING_KEPT}, "it was in that index alone"


@pytest.mark.parametrize("indexes", ["qdrant"], indirect=True)
async def test_a_missing_collection_is_reported_and_rebuilt(
    before: Process, start: Start, indexes: OwnedIndexes, old: FakeEmbeddingServer
) -> None:
    held = await before.holding()
    await indexes.drop("index")
    process = await start(old)
    for work in (process.search("apples"), process.crawl("crawl-7", "glaciers")):
        with pytest.raises(CrawlscopeError, match="crawlscope is gone: run `crawlscope reindex`") as failure:
            await work
        assert failure.value.retryable
    await process.reindex()
    assert await process.holding() == held
    await process.index_what_waits("crawl-7")
    assert url_of("glaciers") in await process.found("glaciers")
