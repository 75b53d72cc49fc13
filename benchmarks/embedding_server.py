"""How much of an embedding server's speed the pages of one worker get, and what that costs in CPU.

    python -m benchmarks.embedding_server [--quick] [--pages N] [--rounds N] [--json FILE]

The server, in a process of its own, answers a request after 50 ms, as if it computed for so long. A bare
client keeps 8 requests of 32 texts in progress and reads no answer. The embedder of one process gets pages of
50 chunks in turns with it: 16 pages are in progress, as in a worker, or 8. On a machine with less than two
idle processors the ratio says more about the machine.
"""

import asyncio
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.embedding import real_like_chunks
from benchmarks.instant_embedder import MAX_TEXTS, instant_embedder
from benchmarks.part import Options, Row, number, run_alone
from crawlscope.indexing.embedders.http import MAX_REQUESTS
from crawlscope.indexing.embedders.tei import open_tei

PART = "embedding_server"
SECONDS_PER_REQUEST = 0.05
CHUNKS = 50
"""The chunks of a page: about as many as pages of 21 kB have."""
PAGES_AT_ONCE = (16, 8)
MIN_RATIO = 0.9


@dataclass(frozen=True)
class Rate:
    texts_per_second: float
    cpu_ms: float
    """Per page, of this process."""


class Stopwatch:
    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, pages: Sequence[Sequence[str]]) -> Rate:
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        return Rate(sum(map(len, pages)) / seconds, cpu * 1000 / len(pages))


async def measure(options: Options) -> Sequence[Row]:
    pages = [real_like_chunks(CHUNKS)] * options.pages_or(400, 100)
    bare: list[Rate] = []
    shared: defaultdict[int, list[Rate]] = defaultdict(list)
    with instant_embedder(SECONDS_PER_REQUEST) as url:
        for _ in range(options.rounds_or(3)):
            bare.append(await _bare(url, pages))
            for at_once in PAGES_AT_ONCE:
                shared[at_once].append(await _shared(url, pages, at_once))
    limit = statistics.median(rate.texts_per_second for rate in bare)
    rows = []
    for at_once, rates in shared.items():
        rate = statistics.median(each.texts_per_second for each in rates)
        against = f"bare client {number(limit)}"
        at_least = MIN_RATIO if at_once == max(PAGES_AT_ONCE) else None
        rows.append(Row(PART, f"{at_once} pages at once", rate, "texts/s", against, rate / limit, at_least))
    cpu = statistics.median(each.cpu_ms for rates in shared.values() for each in rates)
    return [*rows, Row(PART, "CPU of the client", cpu, "ms a page")]


async def _bare(url: str, pages: Sequence[Sequence[str]]) -> Rate:
    body = json.dumps({"input": pages[0][:MAX_TEXTS], "encoding_format": "base64"}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: bare\r\nContent-Length: %d\r\n\r\n"
    request = head % len(body) + body
    requests = iter(range(sum(map(len, pages)) // MAX_TEXTS))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        for _ in requests:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.partition(b"Content-Length: ")[2]))
        writer.close()

    watch = Stopwatch()
    await asyncio.gather(*[client() for _ in range(MAX_REQUESTS)])
    return watch.rate(pages)


async def _shared(url: str, pages: Sequence[Sequence[str]], at_once: int) -> Rate:
    embedder = await open_tei(url)
    waiting = iter(pages)

    async def index() -> None:
        for page in waiting:
            assert len(await embedder.embed(page)) == len(page)

    watch = Stopwatch()
    await asyncio.gather(*[index() for _ in range(at_once)])
    rate = watch.rate(pages)
    await embedder.aclose()
    return rate


if __name__ == "__main__":
    run_alone(measure, __doc__)
