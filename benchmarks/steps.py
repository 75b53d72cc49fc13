"""The time of each step of a page from the delivery into the index, and the owner of its code.

    python -m benchmarks.steps [--quick] [--pages N] [--rounds N] [--json FILE]

CPU time of each step, measured alone in one process with real pages: the shortest of all rounds, because
other programs on the machine only make it longer. `cpu` also measures PostgreSQL, event loops, threads,
sockets and statements, of which one is measured as its client pays for it.
"""

import asyncio
import json
import statistics
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import qdrant_edge as engine
from pydantic_core import from_json, to_json
from sqlalchemy import text as sql

from benchmarks.instant_embedder import DIMENSION
from benchmarks.pages import Site
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.text import milliseconds
from crawlscope.core.compression import compress, decompress
from crawlscope.core.settings import Settings
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.common import load_minilm_tokenizer, normalised
from crawlscope.indexing.embedders.models import PAGE_SHARE
from crawlscope.indexing.embedders.tei import COMPACT
from crawlscope.indexing.index import edge, wire
from crawlscope.indexing.index.edge_shard import load
from crawlscope.indexing.index.fields import BM25, DENSE
from crawlscope.indexing.index.port import IndexedDocument
from crawlscope.indexing.language import language_of
from crawlscope.indexing.passages import passages
from crawlscope.indexing.prepare import within_page
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.indexing.vocabulary import WordCounts
from crawlscope.webhooks.payload import received

PART = "steps"
STATEMENTS = 300
CODE = {
    "API: read the delivery": "half of it JSON",
    "API: compress the body": "zstd",
    "worker: decompress the body": "zstd, JSON",
    "worker: split": "half of it the splitter",
    "worker: tell the language": "numpy",
    "worker: weigh the words": "the engine",
    "worker: read the vectors": "base64",
    "index: make points": "the engine, which converts objects of Python",
    "index: store points": "the engine",
    "index: set what they share": "the engine",
    "index: delete former chunks": "the engine",
}
"""Libraries in C or Rust that take most of a step; all others are code of our own."""
T = TypeVar("T")


class Steps(dict[str, float]):
    """CPU milliseconds by step, summed up."""

    def take(self, step: str, work: Callable[[], T]) -> T:
        result: T
        taken, result = milliseconds(work)
        self[step] = self.get(step, 0.0) + taken
        return result


class Page:
    """The steps of one page before the index process."""

    tokenizer, bm25, max_tokens = load_minilm_tokenizer(), Bm25Encoder(), Settings().chunk_tokens
    words = WordCounts(Database.open("postgresql://localhost/never-connected"))

    def __init__(self, site: Site, number: int) -> None:
        self.url, self.title = site.url(number), site.title(number)
        self.body, self.markdown = site.page_event("steps", number), site.markdown(number)

    def steps(self) -> tuple[Steps, bytes]:
        """With the document as the index process gets it."""
        steps, now, most = Steps(), datetime.now(UTC), self.max_tokens
        stored = steps.take("API: compress the body", lambda: compress(self.body))
        steps.take("API: read the delivery", lambda: received(self.body, now))
        steps["API: read the delivery"] -= steps["API: compress the body"]
        steps.take("worker: decompress the body", lambda: from_json(decompress(stored)))
        text = steps.take("worker: clean", lambda: clean(self.markdown))
        language = steps.take("worker: tell the language", lambda: language_of(text))
        chunks = steps.take("worker: split", lambda: split(text, self.tokenizer, most))
        texts = steps.take("worker: passages", lambda: passages(self.title, text, chunks, self.tokenizer))
        steps.take("worker: count the words", lambda: self.words.count(0, text))
        sparse = steps.take("worker: weigh the words", lambda: self.bm25.encode_documents(texts, language))
        steps.take("worker: ask for vectors", lambda: to_json(COMPACT.body(texts)))
        answer = _answer(len(texts))
        vectors = steps.take(
            "worker: read the vectors",
            lambda: within_page(normalised(_vectors(answer), ""), PAGE_SHARE),
        )
        document = IndexedDocument(
            self.url, self.title, language, ["steps"], [chunk.text for chunk in chunks], vectors, sparse
        )
        packed = steps.take("worker: pack the document", lambda: wire.pack_document(document))
        return steps, packed


def _answer(texts: int) -> bytes:
    vectors = np.random.default_rng(texts).standard_normal((texts, DIMENSION), np.float32)
    rows = [b64encode(vector.tobytes()).decode() for vector in vectors]
    return json.dumps({"data": [{"index": at, "embedding": row} for at, row in enumerate(rows)]}).encode()


def _vectors(answer: bytes) -> npt.NDArray[np.float32]:
    return np.asarray(COMPACT.rows(from_json(answer)), np.float32)


async def measure(options: Options) -> Sequence[Row]:
    site, count, rounds = Site("steps.example"), options.pages_or(60, 20), options.rounds_or(3)
    pages = [Page(site, number) for number in range(count)]
    measured = [[page.steps() for page in pages] for _ in range(rounds)]
    documents = [packed for _, packed in measured[0]]
    of_pages = [_shortest(steps for steps, _ in same) for same in zip(*measured, strict=True)]
    taken = {step: statistics.median(each[step] for each in of_pages) for step in of_pages[0]}
    index = await asyncio.to_thread(lambda: _shortest(_in_engine(documents) for _ in range(rounds)))
    taken |= {step: whole / count for step, whole in index.items()}
    replaced = min([await _replaced(documents) for _ in range(rounds)]) / count
    statement, bare = await asyncio.to_thread(_statement)
    chunks = statistics.median(len(wire.unpack_document(packed).texts) for packed in documents)
    return [
        Row(PART, "all steps", sum(taken.values()), "ms of CPU", f"{number(chunks)} chunks in the median"),
        *(Row(PART, f"– {step}", value, "ms of CPU", CODE.get(step, "")) for step, value in taken.items()),
        Row(PART, "index: a document, in its event loop", replaced, "ms of CPU"),
        Row(PART, "a statement at its client", statement, "ms of CPU", f"asyncpg alone {number(bare)} ms"),
    ]


def _shortest(rounds: Iterable[Steps]) -> Steps:
    every = list(rounds)
    return Steps({step: min(each[step] for each in every) for step in every[0]})


def _in_engine(documents: Sequence[bytes]) -> Steps:
    """The steps of the index process, of all documents."""
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder:
        shard = load(Path(folder, "index"), DIMENSION)  # with its keyword indexes
        for packed in documents:
            document = steps.take("index: unpack the document", lambda: wire.unpack_document(packed))  # noqa: B023
            for start in range(0, len(document.texts), edge.POINTS_PER_UPDATE):
                some = slice(start, start + edge.POINTS_PER_UPDATE)
                points = steps.take("index: make points", lambda: _points(document, some))  # noqa: B023
                upsert = engine.UpdateOperation.upsert_points(points)
                steps.take("index: store points", lambda: shard.update(upsert))  # noqa: B023
                shared: Any = engine.UpdateOperation.set_payload([*document.ids[some]], {**document.payload})
                steps.take("index: set what they share", lambda: shard.update(shared))  # noqa: B023
            others = engine.Filter(
                must=[engine.FieldCondition("url", match=engine.MatchAny([document.url]))],
                must_not=[engine.HasIdCondition({*document.ids})],
            )
            delete = engine.UpdateOperation.delete_points_by_filter(others)
            steps.take("index: delete former chunks", lambda: shard.update(delete))  # noqa: B023
        shard.close()
    return steps


def _points(document: IndexedDocument, some: slice) -> list[engine.Point]:
    rows = zip(
        *(document.ids[some], document.texts[some], document.dense[some], document.sparse[some]),
        strict=True,
    )
    return [
        engine.Point(
            one,
            {DENSE: dense.data, BM25: engine.SparseVector(sparse.indices, sparse.values)},  # type: ignore[arg-type]  # lists
            {"text": text},
        )
        for one, text, dense, sparse in rows
    ]


async def _replaced(documents: Sequence[bytes]) -> float:
    """CPU milliseconds of all documents, as the index process writes them."""
    with tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder:
        index = await asyncio.to_thread(edge.EdgeIndex.open, Path(folder, "index"), DIMENSION)
        began = time.process_time()
        for packed in documents:
            await index.replace([wire.unpack_document(packed)])
        taken = time.process_time() - began
        await index.aclose()
    return 1000 * taken


def _statement() -> tuple[float, float]:
    """CPU milliseconds of one statement in this process, by SQLAlchemy and by asyncpg."""
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        return asyncio.run(_statements(server.url))


async def _statements(url: str) -> tuple[float, float]:
    database, numbers = Database.open(url), {"numbers": list(range(16))}
    query = "SELECT number FROM unnest(CAST({} AS bigint[])) AS given (number)"
    statement, bare = sql(query.format(":numbers")), query.format("$1")
    async with database.transaction() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        began = time.process_time()
        for _ in range(STATEMENTS):
            (await connection.execute(statement, numbers)).all()
        middle = time.process_time()
        for _ in range(STATEMENTS):
            await raw.fetch(bare, numbers["numbers"])
        ended = time.process_time()
    await database.close()
    return 1000 * (middle - began) / STATEMENTS, 1000 * (ended - middle) / STATEMENTS


if __name__ == "__main__":
    run_alone(measure, __doc__)
