"""The cost of live viewers of a crawl: CPU time of the service, with one viewer and with a hundred.

    python -m benchmarks.viewers [--quick] [--pages N] [--rounds N] [--json FILE]

Takes three minutes, and at most six on a busy machine. In turns, a crawl is delivered and indexed while one
or a hundred viewers follow it: programs with the feed of the crawl, and browsers with a page of the
dashboard. A browser is played by what Chromium does there, which `tests/api/dashboard/test_live_pages.py`
watches: it gets all that is new from the feed at the page's own address, and requests nothing else. The cost
of connecting is left out. The embedder answers at once, and pages come at a steady rate: the service
works as much as with its own embedder on two cores. Each viewer sees the end, unless the machine is so busy
that the turn is over before.
"""

import asyncio
import json
import re
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.load import Load, send_all
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.processes import cpu_seconds
from benchmarks.service import API_SECRET, MeasuredService, instant_service, require
from crawlscope.api.http.access import SESSION_COOKIE, new_session

PART = "viewers"
VIEWERS = 100
MAX_RATIO = 1.1
PAGES_PER_SECOND = 40.0
TURN_SECONDS = 16.0
"""No turn takes longer, whatever else the machine does."""
TOTAL = re.compile(r'data-live="total">([\d,]+)<')
FIRST_ROWS = "data-first-rows"
OUTCOMES = "SELECT sum(total_pages)::bigint FROM webhook.crawl_sessions /* benchmark */"

Watch = Callable[[str, str, asyncio.Event], Coroutine[None, None, int]]
"""From the service's address, the crawl and what to set when connected to the pages that were seen."""


@dataclass(frozen=True)
class Cost:
    """CPU of a page."""

    api_ms: float
    all_ms: float


async def measure(options: Options) -> Sequence[Row]:
    pages, rounds = options.pages_or(240, 120), options.rounds_or(3)
    kinds: dict[str, Watch] = {
        "programs": watch_feed,
        "browsers with the crawl": watch_page(""),
        "browsers with its waterfall": watch_page("/pages"),
    }
    rows = []
    async with instant_service() as service:
        for at, (who, watch) in enumerate(kinds.items()):
            one, many = list[Cost](), list[Cost]()
            for turn in range(rounds):
                for viewers, costs in ((1, one), (VIEWERS, many)):
                    load = Load(
                        f"{at}-{turn}-{viewers}",
                        pages,
                        first=1,
                        per_second=PAGES_PER_SECOND,
                        seconds=TURN_SECONDS,
                    )
                    costs.append(await _cost(service, load, watch, viewers))
            rows += _rows(who, one, many)
    return rows


def _rows(who: str, one: Sequence[Cost], many: Sequence[Cost]) -> list[Row]:
    alone, together = (statistics.median(each.all_ms for each in costs) for costs in (one, many))
    api_alone, api_together = (statistics.median(each.api_ms for each in costs) for costs in (one, many))
    what, against = f"CPU of a page with {VIEWERS} {who}", f"one {number(alone)} ms"
    api_against = f"one {number(api_alone)} ms"
    return [
        Row(PART, what, together, "ms", against, together / alone, at_most=MAX_RATIO),
        Row(PART, "– of the API alone", api_together, "ms", api_against, api_together / api_alone),
    ]


async def _cost(service: MeasuredService, load: Load, watch: Watch, viewers: int) -> Cost:
    first = Load(load.crawl_id, 1, ends=False, connections=1)  # so that the crawl is known
    require(await send_all(service.url, API_SECRET, first), 202)
    connected = [asyncio.Event() for _ in range(viewers)]
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watch(service.url, load.crawl_id, event)) for event in connected]
        for event in connected:
            await event.wait()
        before, pages_before = cpu_seconds(), await service.database.fetchval(OUTCOMES)
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                require(await send_all(service.url, API_SECRET, load), 202)
                seen = set(await asyncio.gather(*watching))
                if not seen <= {load.pages, load.pages + 1}:  # the first page may settle before they connect
                    raise SystemExit(f"viewers saw {sorted(seen)} of {load.pages} pages")
        used, pages = cpu_seconds(), await service.database.fetchval(OUTCOMES) - pages_before
        for each in watching:
            each.cancel()
    used.subtract(before)
    return Cost(1000 * used["API"] / pages, 1000 * used.total() / pages)


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


async def _request(url: str, path: str, accept: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\n"
    writer.write(f"{head}Cookie: {SESSION_COOKIE}={new_session(API_SECRET)}\r\n\r\n".encode())
    return reader, writer


if __name__ == "__main__":
    run_alone(measure, __doc__)
