"""What live viewers of a crawl cost: CPU time of the whole service, with one viewer and with a hundred.

    python -m benchmarks.viewers [--quick] [--pages N] [--rounds N] [--json FILE]

In turns, a crawl is delivered and indexed while one or a hundred connections follow it. The embedder answers
at once: with a real one the share of the viewers would be smaller. Each viewer has to receive every page.
"""

import asyncio
import json
import statistics
from collections.abc import Sequence
from urllib.parse import urlsplit

from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.service import API_SECRET, Ingested, MeasuredService, instant_service, require

PART = "viewers"
VIEWERS = 100
MAX_RATIO = 1.1


async def measure(options: Options) -> Sequence[Row]:
    pages = options.pages_or(600, 150)
    one, many = [], []
    async with instant_service() as service:
        for turn in range(options.rounds_or(3)):
            one.append(await _followed(service, Load(f"one-{turn}", pages, first=1), 1))
            many.append(await _followed(service, Load(f"many-{turn}", pages, first=1), VIEWERS))
    alone, together = (statistics.median(map(_cpu_ms, each)) for each in (one, many))
    what, against = f"CPU of a page with {VIEWERS} live viewers", f"one viewer {number(alone)} ms"
    return [Row(PART, what, together, "ms", against, together / alone, at_most=MAX_RATIO)]


def _cpu_ms(ingested: Ingested) -> float:
    return sum(map(ingested.cpu_ms, ingested.cpu_seconds))


async def _followed(service: MeasuredService, load: Load, viewers: int) -> Ingested:
    """What it costs to connect is left out."""
    first = await service.deliver(Load(load.crawl_id, 1, ends=False))  # so that the crawl is known
    require(first, 202)
    connected = [asyncio.Event() for _ in range(viewers)]
    watching = [asyncio.create_task(_watch(service.url, load.crawl_id, event)) for event in connected]
    await asyncio.gather(*(event.wait() for event in connected))
    ingested = await service.ingest(load)
    seen = await asyncio.gather(*watching)
    if not set(seen) <= {load.pages, load.pages + 1}:  # the first page settles before or after they connect
        raise SystemExit(f"viewers received {sorted(set(seen))} of {load.pages} pages")
    return ingested


async def _watch(url: str, crawl_id: str, connected: asyncio.Event) -> int:
    """The number of pages that are received until the feed ends. Sets `connected` at the first event."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    head = f"GET /api/metrics/crawls/{crawl_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    writer.write(f"{head}X-API-Secret: {API_SECRET}\r\n\r\n".encode())
    pages, name = 0, ""
    async for line in reader:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            name = value
            connected.set()
        elif field == "data" and name == "pages":
            pages += len(json.loads(value)["pages"])
        elif field == "data" and name == "end":
            break
    writer.close()
    return pages


if __name__ == "__main__":
    run_alone(measure, __doc__)
