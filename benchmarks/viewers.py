"""What live viewers of a crawl cost: CPU time of the whole service, with one viewer and with a hundred.

    python -m benchmarks.viewers [--quick] [--pages N] [--rounds N] [--json FILE]

In turns, a crawl is delivered and indexed while one or a hundred viewers follow it: programs with the feed of
the crawl, and browsers with a page of the dashboard. A browser is played by what Chromium does there, which
`tests/api/dashboard/test_followed.py` watches: it gets the page and the first rows of the waterfall, then all
that is new from the feed at the page's own address. What it costs to connect is left out. The embedder
answers at once, and pages come at a steady rate: the service works as much as with its own embedder on two
cores. Each viewer has to see the end.
"""

import asyncio
import json
import re
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.load import Load
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import cpu_seconds
from benchmarks.service import API_SECRET, MeasuredService, instant_service, require
from crawlscope.api.http.access import SESSION_COOKIE, new_session

PART = "viewers"
VIEWERS = 100
MAX_RATIO = 1.1
PAGES_PER_SECOND = 40.0
TOTAL = re.compile(r'data-live="total">([\d,]+)<')
SPANS = "/spans?limit=200&offset=0"
FIRST_ROWS = "data-first-rows"

Watch = Callable[[str, str, asyncio.Event], Coroutine[None, None, int]]
"""From the service's address, the crawl and what to set when connected to the pages that were seen."""


async def measure(options: Options) -> Sequence[Row]:
    pages, rounds = options.pages_or(600, 160), options.rounds_or(3)
    kinds: dict[str, Watch] = {
        "programs": watch_feed,
        "browsers with the crawl": watch_page(""),
        "browsers with its waterfall": watch_page("/pages"),
    }
    rows = []
    async with instant_service() as service:
        for at, (who, watch) in enumerate(kinds.items()):
            one, many = list[float](), list[float]()
            for turn in range(rounds):
                for viewers, costs in ((1, one), (VIEWERS, many)):
                    load = Load(f"{at}-{turn}-{viewers}", pages, first=1, per_second=PAGES_PER_SECOND)
                    costs.append(await _cost_ms(service, load, watch, viewers))
            alone, together = statistics.median(one), statistics.median(many)
            what, against = f"CPU of a page with {VIEWERS} {who}", f"one {number(alone)} ms"
            rows.append(Row(PART, what, together, "ms", against, together / alone, at_most=MAX_RATIO))
    return rows


async def _cost_ms(service: MeasuredService, load: Load, watch: Watch, viewers: int) -> float:
    """CPU of a page. What it costs to connect is left out."""
    first = await service.deliver(Load(load.crawl_id, 1, ends=False))  # so that the crawl is known
    require(first, 202)
    connected = [asyncio.Event() for _ in range(viewers)]
    watching = [asyncio.create_task(watch(service.url, load.crawl_id, event)) for event in connected]
    await asyncio.gather(*(event.wait() for event in connected))
    before = cpu_seconds()
    require(await service.deliver(load), 202)
    async with asyncio.timeout(600):
        seen = await asyncio.gather(*watching)
    used = cpu_seconds()
    if not set(seen) <= {load.pages, load.pages + 1}:  # the first page settles before or after they connect
        raise SystemExit(f"viewers saw {sorted(set(seen))} of {load.pages} pages")
    return 1000 * (used.total() - before.total()) / load.pages


async def watch_feed(url: str, crawl_id: str, connected: asyncio.Event) -> int:
    """As a program: the number of pages that are received until the feed ends."""
    pages = 0
    async with _opened(url, f"/api/metrics/crawls/{crawl_id}/events", "*/*") as events:
        async for name, data in events:
            connected.set()
            if name == "pages":
                pages += len(json.loads(data)["pages"])
            elif name == "end":
                return pages
    return pages


def watch_page(below: str) -> Watch:
    """As a browser with this page of the crawl: the number of pages when it is refreshed no more."""

    async def watch(url: str, crawl_id: str, connected: asyncio.Event) -> int:
        path = f"/crawls/{crawl_id}{below}"
        await _get(url, path, "text/html")
        if below == "/pages":
            await _get(url, f"/crawls/{crawl_id}{SPANS}", "application/json")
        async with _opened(url, path, "text/event-stream") as events:
            connected.set()
            async for name, data in events:
                if name == "page" and below == "/pages" and FIRST_ROWS not in data:
                    raise SystemExit("the waterfall has to ask for its rows")
                if name == "page" and "data-followed" not in data and (total := TOTAL.search(data)):
                    return int(total[1].replace(",", ""))
        return 0

    return watch


@asynccontextmanager
async def _opened(url: str, path: str, accept: str) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    """The events of a feed: their names and data."""
    reader, writer = await _request(url, path, accept)
    try:
        await reader.readuntil(b"\r\n\r\n")
        yield _events(reader)
    finally:
        writer.close()


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, str]]:
    name, data = "", list[str]()
    async for line in reader:
        field, _, value = line.decode().rstrip("\r\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not field and data:
            yield name, "\n".join(data)
            name, data = "", []


async def _get(url: str, path: str, accept: str) -> None:
    reader, writer = await _request(url, path, accept, "Connection: close\r\n")
    answer = await reader.read()
    if b" 200 " not in answer[:20]:
        raise SystemExit(f"{path} was answered with {answer[:200]!r}")
    writer.close()


async def _request(
    url: str, path: str, accept: str, more: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\n{more}"
    writer.write(f"{head}Cookie: {SESSION_COOKIE}={new_session(API_SECRET)}\r\n\r\n".encode())
    return reader, writer


if __name__ == "__main__":
    run_alone(measure, __doc__)
