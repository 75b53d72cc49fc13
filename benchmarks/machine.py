"""What a machine gives: pages a second with all of its processors, and which process they wait for.

    python -m benchmarks.machine [--embedder-url URL] [--workers N] [--connections N] [--pages N]

URL is that of a Text Embeddings Inference server, such as one with a GPU on this machine: its speed without
the service is measured first, by clients that have 64 requests of 32 texts in progress and read no answer.
Without a URL, a server that answers at once takes its place. Each delivery must be accepted.
"""

import argparse
import asyncio
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.instant_embedder import MAX_TEXTS, instant_embedder
from benchmarks.load import Connection, Load, Searches, in_process
from benchmarks.pages import pages_of_site
from benchmarks.part import Row, number, report
from benchmarks.processes import processes
from benchmarks.search import queries
from benchmarks.service import Ingested, MeasuredService, measured_service, require
from crawlscope.core.settings import Settings
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.common import load_minilm_tokenizer

PART = "machine"
CLIENTS, REQUESTS_OF_CLIENT = 4, 16
BARE_SECONDS, SEARCH_SECONDS = 4.0, 5.0
FIRST_PAGES = 20
"""Of each worker: a new process sees every word for the first time."""
MIN_OF_EMBEDDER = 0.6


async def measure(embedder_url: str | None, workers: int, connections: int, pages: int) -> Sequence[Row]:
    bare = await _bare_texts_per_second(embedder_url) if embedder_url else None
    with instant_embedder() as instant_url:
        settings = {"EMBEDDER": "tei", "EMBEDDER_URL": embedder_url or instant_url, "WORKERS": str(workers)}
        async with measured_service(**settings) as service:
            await service.ingest(Load("first-pages", FIRST_PAGES * workers, connections=connections))
            async with _shares_of_processes() as shares:
                ingested = await service.ingest(Load("pages", pages, connections=connections))
            rows = await _rows(service, ingested, shares, bare)
            found = await service.search(Searches(queries(), SEARCH_SECONDS))
            require(found, 200)
    against = f"p50 {number(found.percentile_ms(0.5))} ms"
    return [*rows, Row(PART, "searches afterwards", found.count / found.seconds, "/s", against)]


async def _rows(
    service: MeasuredService, ingested: Ingested, shares: dict[str, float], bare: float | None
) -> list[Row]:
    counted = "SELECT sum(chunks)::float8 FROM webhook.pages WHERE crawl_id = 'pages'"
    chunks = await service.database.fetchval(counted) / ingested.seconds
    against, ratio, at_least = ("", None, None)
    if bare is not None:
        against, ratio, at_least = f"bare embedder {number(bare)}", chunks / bare, MIN_OF_EMBEDDER
    used = sum(ingested.cpu_seconds.values()) / ingested.seconds
    return [
        Row(PART, "pages", ingested.pages_per_second, "/s"),
        Row(PART, "– their chunks", chunks, "/s", against, ratio, at_least),
        Row(PART, "p99 of a delivery", ingested.delivered.percentile_ms(0.99), "ms"),
        Row(PART, "processors that the service used", used, "", f"of {os.cpu_count()}"),
        *(Row(PART, f"– busiest process: {kind}", share, "") for kind, share in sorted(shares.items())),
    ]


@asynccontextmanager
async def _shares_of_processes() -> AsyncIterator[dict[str, float]]:
    """After the block: by kind, the share of one processor that its busiest process used."""
    shares: defaultdict[str, float] = defaultdict(float)
    before, began = _seconds_of_processes(), time.perf_counter()
    yield shares
    elapsed = time.perf_counter() - began
    for key, used in _seconds_of_processes().items():
        kind, _ = key
        shares[kind] = max(shares[kind], (used - before.get(key, 0.0)) / elapsed)


def _seconds_of_processes() -> dict[tuple[str, int], float]:
    used = {}
    for kind, process in processes():
        with suppress(psutil.Error):
            used[kind, process.pid] = sum(process.cpu_times()[:2])
    return used


async def _bare_texts_per_second(url: str) -> float:
    texts = _chunks()
    asked = [in_process(_ask, (url, texts[client::CLIENTS])) for client in range(CLIENTS)]
    return sum(await asyncio.gather(*asked)) / BARE_SECONDS


def _chunks() -> list[str]:
    tokenizer, most = load_minilm_tokenizer(), Settings().chunk_tokens
    return [chunk.text for page in pages_of_site(100) for chunk in split(clean(page), tokenizer, most)]


def _ask(given: tuple[str, Sequence[str]]) -> int:
    return asyncio.run(_ask_all(*given))


async def _ask_all(url: str, texts: Sequence[str]) -> int:
    """The number of texts that were answered in the time."""
    path = f"{urlsplit(url).path}/embed"
    starts = range(0, len(texts) - MAX_TEXTS + 1, MAX_TEXTS)
    asked = [json.dumps({"inputs": texts[n : n + MAX_TEXTS], "truncate": True}).encode() for n in starts]
    bodies = itertools.cycle(asked)
    began, answered = time.perf_counter(), 0

    async def client() -> None:
        nonlocal answered
        connection = await Connection.open(url, secret="")
        while time.perf_counter() < began + BARE_SECONDS:
            await connection.post(path, next(bodies))
            answered += MAX_TEXTS
        connection.close()

    await asyncio.gather(*[client() for _ in range(REQUESTS_OF_CLIENT)])
    return answered


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--embedder-url")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pages", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="also write all rows to this file")
    given = parser.parse_args()
    rows = asyncio.run(measure(given.embedder_url, given.workers, given.connections, given.pages))
    report(rows, given.json)


if __name__ == "__main__":
    main()
