"""The embedded index: writes and hybrid queries over the socket, against the engine alone.

    python -m benchmarks.index [--quick] [--chunks N] [--rounds N] [--rate N] [--json FILE]

The index runs in a process of its own, as in the service. The engine alone is the same shard in this process,
opened when the index process has ended. Text is made up, 8 chunks a page, 32 pages a call. The last part
compares the protocol of the socket with HTTP over a Unix socket, in calls that do nothing.

With `--rate`, so many chunks a second are written instead, with searches beside: how memory and the time of a
query grow.
"""

import asyncio
import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import httpx2
import msgpack
import numpy as np
import psutil
import qdrant_edge as engine
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.part import Options, Row, options_of, options_parser, report
from benchmarks.processes import memory_of
from crawlscope.core.errors import IndexUnavailable
from crawlscope.core.settings import Settings
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.fields import BM25, DENSE
from crawlscope.indexing.index.optimizing import MIN_TO_LINK, Goal
from crawlscope.indexing.index.port import (
    Filters,
    Halves,
    Hit,
    IndexedDocument,
    SearchIndex,
    SparseVector,
)
from crawlscope.indexing.index.socket_client import RemoteIndexes
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.index.socket_server import IndexServer
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.processes.index_process import run_index

PART = "index"
CHUNKS_PER_PAGE = 8
PAGES_PER_CALL = 32
WORDS_PER_CHUNK = 120
WORDS_PER_QUERY = 6
VOCABULARY = 30_000
TEXTS = 2_000
DIMENSION = 384
CANDIDATES = 100
SHOWN = 10
EMPTY_CALLS = 2_000
NAME = "index"


class Author:
    """Writes text whose words are as unevenly frequent as those of a language, the same every time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(8)
        letters = self._random.integers(ord("a"), ord("z"), (VOCABULARY, 7), dtype=np.uint8)
        self._words = [row.tobytes().decode() for row in letters]
        frequency = 1 / np.arange(1, VOCABULARY + 1)
        self._share = frequency / frequency.sum()
        self._bm25 = Bm25Encoder()
        texts = [self.text(WORDS_PER_CHUNK) for _ in range(TEXTS)]
        self._chunks = [(text, self._bm25.encode_document(text)) for text in texts]

    def text(self, words: int) -> str:
        return " ".join(self._words[n] for n in self._random.choice(VOCABULARY, words, p=self._share))

    def page(self, number: int) -> IndexedDocument:
        url = f"https://site{number % 5}.example/part{number % 50}/page{number}.html"
        chosen = self._random.integers(0, TEXTS, CHUNKS_PER_PAGE)
        return IndexedDocument(
            url=url,
            title=url,
            language="en",
            crawl_ids=["crawl"],
            texts=[self._chunks[n][0] for n in chosen],
            dense=self._random.standard_normal((CHUNKS_PER_PAGE, DIMENSION), dtype=np.float32),
            sparse=[self._chunks[n][1] for n in chosen],
        )

    def question(self) -> tuple[list[float], SparseVector]:
        vector = self._random.standard_normal(DIMENSION, dtype=np.float32)
        return vector.tolist(), self._bm25.encode_query(self.text(WORDS_PER_QUERY))


async def measure(options: Options, chunks: int) -> Sequence[Row]:
    author = Author()
    queries = 60 * options.rounds_or(5)
    with tempfile.TemporaryDirectory(prefix="crawlscope-index-") as name:
        folder = Path(name)
        async with index_process(folder) as (process, index):
            rows = await written(author, process, index, chunks)
            over_socket = await asked(author, queries, partial(search, index, Filters()))
            filtered = {
                what: await asked(author, queries, partial(search, index, filters))
                for what, filters in FILTERS.items()
            }
            writing = asyncio.create_task(rewrite(author, index, chunks))
            while_writing = await asked(author, queries, partial(search, index, Filters()))
            writing.cancel()
            size = await index.size()
        bare, *optimized = await bare_queries(author, folder, queries)
    median = float(np.median(over_socket))
    alone = f"engine alone {bare:.3g} ms"
    what = f"hybrid query and {SHOWN} chunks, over socket"
    rows += [
        Row(PART, what, median, "ms", alone, median / bare, at_most=1.5),
        Row(PART, "– 95th percentile", float(np.percentile(over_socket, 95)), "ms"),
        *(Row(PART, f"– {what}", float(np.median(times)), "ms") for what, times in filtered.items()),
        Row(PART, "– while a client writes without pause", float(np.median(while_writing)), "ms"),
        Row(PART, "– while a client writes, 95th percentile", float(np.percentile(while_writing, 95)), "ms"),
        *optimized_rows(*optimized),
        Row(PART, "disk of a chunk", (size.bytes or 0) / size.chunks / 1024, "kB"),
    ]
    return [*rows, *await transports()]


async def measure_growth(options: Options, chunks: int, rate: float) -> Sequence[Row]:
    """Memory of the index process and those that it starts, and queries, in the quarters of the chunks."""
    author, rows, queries = Author(), list[Row](), 60 * options.rounds_or(5)
    pages = range(chunks // CHUNKS_PER_PAGE)
    with tempfile.TemporaryDirectory(prefix="crawlscope-index-") as name:
        async with index_process(Path(name)) as (process, index):
            began, quarter = perf_counter(), len(pages) // 4
            for part in (pages[start : start + quarter] for start in range(0, 4 * quarter, quarter)):
                measuring = asyncio.create_task(beside(author, process, index))
                for start in range(0, quarter, PAGES_PER_CALL):
                    await index.replace([author.page(n) for n in part[start : start + PAGES_PER_CALL]])
                    ahead = began + part[start] * CHUNKS_PER_PAGE / rate - perf_counter()
                    await asyncio.sleep(max(0.0, ahead))
                measuring.cancel()
                times, memory = await measuring
                written = part[-1] * CHUNKS_PER_PAGE
                rows += [
                    Row(PART, f"hybrid query until {written:,} chunks", float(np.median(times)), "ms"),
                    Row(PART, "– 95th percentile", float(np.percentile(times, 95)), "ms"),
                    Row(PART, "– memory of the index", float(np.median(memory)), "MB"),
                    Row(PART, "– largest", max(memory), "MB"),
                ]
            idle = float(np.percentile(await asked(author, queries, partial(search, index, Filters())), 95))
            p95 = rows[-3].value
            speed = written / (perf_counter() - began)
    rows.append(Row(PART, "p95 while written, against none written", p95, "ms", f"{idle:.3g} ms", p95 / idle))
    return [*rows, Row(PART, "chunks written", speed, "a second")]


async def beside(
    author: Author, process: psutil.Process, index: SearchIndex
) -> tuple[list[float], list[float]]:
    """Until it is cancelled: the milliseconds of each query, and the MB after it."""
    times, memory = list[float](), list[float]()
    with suppress(asyncio.CancelledError):
        while True:
            times += await asked(author, 1, partial(search, index, Filters()))
            memory.append(sum(memory_of(each)[0] for each in (process, *process.children(recursive=True))))
            await asyncio.sleep(0.2)
    return times, memory


FILTERS = {
    "one domain of five": Filters(domain="site1.example"),
    "one folder of fifty": Filters(url_prefix="https://site1.example/part1/"),
    "prefix inside a path segment": Filters(url_prefix="https://site1.example/part1"),
}


@asynccontextmanager
async def index_process(folder: Path) -> AsyncIterator[tuple[psutil.Process, SearchIndex]]:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=serve_index, args=(folder,), daemon=True)
    process.start()
    remotes = RemoteIndexes(socket_path_for(folder))
    index = await remotes.open(NAME, DIMENSION)
    await answers(index)
    yield psutil.Process(process.pid), index
    await remotes.aclose()
    process.terminate()
    process.join()


def serve_index(folder: Path) -> None:
    uvloop.run(run_index(Settings(_env_file=None, data_dir=folder), asyncio.Event()))


async def answers(index: SearchIndex) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(IndexUnavailable):
                await index.size()
                return
            await asyncio.sleep(0.05)


async def written(author: Author, process: psutil.Process, index: SearchIndex, chunks: int) -> list[Row]:
    """Fills the index."""
    pages = range(chunks // CHUNKS_PER_PAGE)
    calls = [pages[start : start + PAGES_PER_CALL] for start in range(0, len(pages), PAGES_PER_CALL)]
    elapsed = client = 0.0
    before = cpu_of(process)
    for numbers in calls:
        documents = [author.page(number) for number in numbers]
        began, cpu = perf_counter(), process_time()
        await index.replace(documents)
        elapsed += perf_counter() - began
        client += process_time() - cpu
    per_chunk = 1e6 / (len(pages) * CHUNKS_PER_PAGE)
    return [
        Row(PART, "chunks written", 1e6 / per_chunk / elapsed, "a second"),
        Row(PART, "– CPU of the client", client * per_chunk, "µs a chunk"),
        Row(PART, "– CPU of the index process", (cpu_of(process) - before) * per_chunk, "µs a chunk"),
    ]


def cpu_of(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


async def rewrite(author: Author, index: SearchIndex, chunks: int) -> None:
    pages = chunks // CHUNKS_PER_PAGE
    documents = [author.page(number) for number in range(min(pages, PAGES_PER_CALL * 8))]
    while True:
        for start in range(0, len(documents), PAGES_PER_CALL):
            await index.replace(documents[start : start + PAGES_PER_CALL])


async def search(index: SearchIndex, filters: Filters, dense: list[float], sparse: SparseVector) -> None:
    """As a search does it."""
    halves = await index.query(dense, sparse, filters, CANDIDATES)
    await index.payloads([hit.id for hit in halves.bm25[:SHOWN]])


async def asked(
    author: Author, queries: int, ask: Callable[[list[float], SparseVector], Awaitable[object]]
) -> list[float]:
    """Milliseconds of each query."""
    times = []
    for _ in range(queries):
        question = author.question()
        began = perf_counter()
        await ask(*question)
        times.append((perf_counter() - began) * 1000)
    return times


async def bare_queries(author: Author, folder: Path, queries: int) -> list[float]:
    """Milliseconds of the engine's own call for the same candidates with all they contain.

    For a large index also the same after its optimisation, the seconds that this took, and the milliseconds
    that queries stood still for it.
    """
    index = EdgeIndex.open(folder / NAME, DIMENSION)
    shard = index._shard  # noqa: SLF001 - the engine without anything around it

    async def ask(dense: list[float], sparse: SparseVector) -> None:
        words = engine.SparseVector(list(sparse.indices), list(sparse.values))
        nearest = [engine.Query.Nearest(dense, using=DENSE), engine.Query.Nearest(words, using=BM25)]
        requests = [engine.QueryRequest(limit=CANDIDATES, query=each, with_payload=True) for each in nearest]
        shard.query_batch(engine.QueryBatchRequest(requests))

    measured = [float(np.median(await asked(author, queries, ask)))]
    if (await index.size()).chunks >= MIN_TO_LINK:
        began, pauses = perf_counter(), [0.0]
        for goal in Goal:
            optimizing = asyncio.create_task(index.optimize(goal))
            while not optimizing.done():
                pauses += await asked(author, 1, partial(search, index, Filters()))
                await asyncio.sleep(0.05)
            await optimizing
        seconds = perf_counter() - began
        shard = index._shard  # noqa: SLF001
        await asked(author, queries, ask)  # reads what is on the disk now
        measured += [float(np.median(await asked(author, queries, ask))), seconds, max(pauses)]
    await index.aclose()
    return measured


def optimized_rows(*measured: float) -> list[Row]:
    if not measured:
        return []
    query, seconds, pause = measured
    return [
        Row(PART, "engine alone, after its optimisation", query, "ms"),
        Row(PART, "– duration of the optimisation", seconds, "s"),
        Row(PART, "– longest query meanwhile", pause, "ms"),
    ]


HITS = Hit.all_of([n.to_bytes(16) for n in range(CANDIDATES)], [0.5] * CANDIDATES)


class Instant(EdgeIndex):
    """Finds the same at once."""

    async def query(self, *_: object) -> Halves:
        return Halves(HITS, HITS)


class InstantIndexes(EdgeIndexes):
    async def open(self, *_: object) -> SearchIndex:
        return Instant.__new__(Instant)


async def transports() -> list[Row]:
    author = Author()
    questions = [author.question() for _ in range(EMPTY_CALLS)]
    with tempfile.TemporaryDirectory(prefix="crawlscope-index-") as name:
        own, http = Path(name, "own.sock"), Path(name, "http.sock")
        async with serving(serve_own, own) as process:
            remotes = RemoteIndexes(own)
            index = await remotes.open(NAME, DIMENSION)
            by_own = await cpu_of_calls(
                process, questions, lambda dense, sparse: index.query(dense, sparse, Filters(), CANDIDATES)
            )
            await remotes.aclose()
        async with (
            serving(serve_http, http) as process,
            httpx2.AsyncClient(
                transport=httpx2.AsyncHTTPTransport(uds=str(http)), base_url="http://i"
            ) as client,
        ):

            async def post(dense: list[float], sparse: SparseVector) -> None:
                question = [wire.pack_floats(dense), wire.pack_sparse(sparse)]
                answer = msgpack.unpackb((await client.post("/", content=msgpack.packb(question))).content)
                _ = [wire.unpack_hits(half) for half in answer]

            by_http = await cpu_of_calls(process, questions, post)
    own_row = Row(PART, "CPU of a call without work, both ends, by the socket's protocol", by_own, "µs")
    return [own_row, Row(PART, "– by HTTP over a Unix socket", by_http, "µs", "protocol", by_http / by_own)]


async def cpu_of_calls(
    process: psutil.Process,
    questions: Sequence[tuple[list[float], SparseVector]],
    ask: Callable[[list[float], SparseVector], Awaitable[object]],
) -> float:
    """Microseconds of a call, in both processes."""
    await ask(*questions[0])
    before = process_time() + cpu_of(process)
    for question in questions:
        await ask(*question)
    return (process_time() + cpu_of(process) - before) / len(questions) * 1e6


@asynccontextmanager
async def serving(serve: Callable[[Path], None], path: Path) -> AsyncIterator[psutil.Process]:
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(path,), daemon=True)
    process.start()
    while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.05)
    yield psutil.Process(process.pid)
    process.terminate()
    process.join()


def serve_own(path: Path) -> None:
    async def serve() -> None:
        await IndexServer(InstantIndexes(path.parent), path).start()
        await asyncio.Event().wait()

    uvloop.run(serve())


def serve_http(path: Path) -> None:
    async def answer(request: Request) -> Response:
        dense, sparse = msgpack.unpackb(await request.body())
        _ = wire.unpack_floats(dense), wire.unpack_sparse(sparse)
        return Response(msgpack.packb([wire.pack_hits(HITS), wire.pack_hits(HITS)]))

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    uvicorn.run(app, uds=str(path), log_level="warning", access_log=False)


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--chunks", type=int, help="size of the index")
    parser.add_argument("--rate", type=float, help="chunks a second, to measure growth alone")
    given = parser.parse_args()
    options = options_of(given)
    chunks = given.chunks or (8_000 if options.quick else 100_000)
    measuring = measure_growth(options, chunks, given.rate) if given.rate else measure(options, chunks)
    rows = uvloop.run(measuring)
    report(rows, given.json)


if __name__ == "__main__":
    main()
