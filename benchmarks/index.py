"""How fast the embedded index takes chunks and answers hybrid queries, at 20,000 chunks and made-up text.

    python -m benchmarks.index [CHUNKS]

Once in the process that owns the index, and once over the socket, as workers reach it.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import (
    FIRST_NAME,
    Filters,
    IndexedDocument,
    SearchIndex,
)
from crawlscope.indexing.index.socket_client import RemoteIndexes
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.index.socket_server import IndexServer
from crawlscope.indexing.sparse import Bm25Encoder

CHUNKS = 20_000
CHUNKS_PER_PAGE = 8
WORDS_PER_CHUNK = 120
WORDS_PER_QUERY = 6
VOCABULARY = 30_000
DIMENSION = 384
QUERIES = 200
CANDIDATES = 100


class Author:
    """Writes text whose words are as unevenly frequent as those of a language, the same every time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(8)
        letters = self._random.integers(ord("a"), ord("z"), (VOCABULARY, 7), dtype=np.uint8)
        self._words = [row.tobytes().decode() for row in letters]
        frequency = 1 / np.arange(1, VOCABULARY + 1)
        self._share = frequency / frequency.sum()
        self._bm25 = Bm25Encoder()

    def text(self, words: int) -> str:
        return " ".join(self._words[n] for n in self._random.choice(VOCABULARY, words, p=self._share))

    def vector(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return self._random.standard_normal(DIMENSION, dtype=np.float32)

    def page(self, number: int) -> IndexedDocument:
        url = f"https://site{number % 5}.example/part{number % 50}/page{number}.html"
        texts = [self.text(WORDS_PER_CHUNK) for _ in range(CHUNKS_PER_PAGE)]
        return IndexedDocument(
            url=url,
            title=url,
            language="en",
            crawl_ids=["crawl"],
            texts=texts,
            dense=self._random.standard_normal((CHUNKS_PER_PAGE, DIMENSION), dtype=np.float32),
            sparse=[self._bm25.encode_document(text) for text in texts],
        )

    async def ask(self, index: SearchIndex, filters: Filters) -> float:
        """Milliseconds that one hybrid query took."""
        dense, sparse = self.vector(), self._bm25.encode_query(self.text(WORDS_PER_QUERY))
        began = perf_counter()
        await index.query(dense, sparse, filters, CANDIDATES)
        return (perf_counter() - began) * 1000


async def fill(index: SearchIndex, pages: Sequence[IndexedDocument]) -> float:
    """Chunks per second, handed over page by page as workers do."""
    began = perf_counter()
    for page in pages:
        await index.replace([page])
    return len(pages) * CHUNKS_PER_PAGE / (perf_counter() - began)


async def report_queries(author: Author, index: SearchIndex, name: str, filters: Filters) -> None:
    times = [await author.ask(index, filters) for _ in range(QUERIES)]
    median, p95 = np.percentile(times, [50, 95])
    print(f"  {name:34} median {median:5.1f} ms   p95 {p95:5.1f} ms")


async def report(chunks: int) -> None:
    author = Author()
    pages = [author.page(number) for number in range(chunks // CHUNKS_PER_PAGE)]
    half = len(pages) // 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        indexes = EdgeIndexes(folder)
        index = await indexes.open(FIRST_NAME, DIMENSION)
        server = IndexServer(indexes, socket_path_for(folder))
        await server.start()
        remotes = RemoteIndexes(socket_path_for(folder))
        remote = await remotes.open(FIRST_NAME, DIMENSION)
        print(f"upserts in process   {await fill(index, pages[:half]):6.0f} chunks/s")
        print(f"upserts over socket  {await fill(remote, pages[half:]):6.0f} chunks/s")
        size = await index.size()
        print(f"hybrid queries for 2 × {CANDIDATES} candidates over {size.chunks} chunks:")
        await report_queries(author, index, "in process", Filters())
        await report_queries(author, remote, "over socket", Filters())
        await report_queries(author, index, "one domain of five", Filters(domain="site1.example"))
        segment = Filters(url_prefix="https://site1.example/part1/")
        await report_queries(author, index, "one folder of fifty", segment)
        inside = Filters(url_prefix="https://site1.example/part1")
        await report_queries(author, index, "prefix inside a path segment", inside)
        print(f"{(size.bytes or 0) / size.chunks:.0f} bytes on disk per chunk")
        await remotes.aclose()
        await server.stop()
        await indexes.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description="Upserts and hybrid queries of the embedded index")
    parser.add_argument("chunks", type=int, nargs="?", default=CHUNKS)
    asyncio.run(report(parser.parse_args().chunks))


if __name__ == "__main__":
    main()
