"""All running crawls on a terminal, live."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crawlscope.api.client import ServiceClient
from crawlscope.api.rendering.words import NONE, ago, duration, plain, shorten_middle
from crawlscope.core.errors import ServiceUnavailable
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.insights.progress import Pace, Progress, poll_interval
from crawlscope.insights.schemas import CrawlListResponse, CrawlMetricsResponse

NEWEST = 50
"""The number of newest crawls that are shown besides those in progress, if their pages are still being
indexed."""
MIN_SECONDS = 1.0
BAR_WIDTH = 20
URL_WIDTH = 36

Paces = defaultdict[str, Pace]


async def running_crawls(client: ServiceClient) -> CrawlListResponse:
    """Crawls in progress and crawls with pages that wait, the newest first."""
    in_progress = await client.crawls(NEWEST, status=CrawlStatus.IN_PROGRESS.value)
    newest = await client.crawls(NEWEST)
    crawls = {crawl.crawl_id: crawl for crawl in in_progress.crawls}
    crawls |= {crawl.crawl_id: crawl for crawl in newest.crawls if crawl.pages_pending}
    ordered = sorted(crawls.values(), key=lambda crawl: crawl.started_at, reverse=True)
    hidden = in_progress.total - len(in_progress.crawls)
    return CrawlListResponse(crawls=ordered, total=len(ordered) + hidden)


async def watch_crawls(
    client: ServiceClient, console: Console, recover: Callable[[], Awaitable[None]]
) -> None:
    """Shows them until it is cancelled; without a terminal, prints them once."""
    paces: Paces = defaultdict(Pace)
    if not console.is_terminal:
        console.print(render_top(await running_crawls(client), paces, datetime.now(UTC)))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            asked = time.monotonic()
            try:
                found = await running_crawls(client)
            except ServiceUnavailable:
                await recover()
                continue
            now = time.monotonic()
            for crawl in found.crawls:
                paces[crawl.crawl_id].note(now, Progress.of(crawl).settled)
            live.update(render_top(found, paces, datetime.now(UTC)), refresh=True)
            await asyncio.sleep(max(MIN_SECONDS, poll_interval(now - asked)))


def render_top(found: CrawlListResponse, paces: Paces, now: datetime) -> RenderableType:
    if not found.crawls:
        return Text("No crawl runs. Start one: crawlscope crawl https://example.com", style="dim")
    table = Table(box=None, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("crawl", no_wrap=True)
    table.add_column("pages", no_wrap=True)
    for name in ("pages/s", "ETA", "began"):
        table.add_column(name, justify="right", no_wrap=True)
    lines: list[Text] = []
    for crawl in found.crawls:
        progress, rate = Progress.of(crawl), paces[crawl.crawl_id].pages_per_second
        eta_ms = max(0.0, (crawl.eta.at - now).total_seconds() * 1000) if crawl.eta else None
        table.add_row(
            Text.assemble((plain(crawl.crawl_id), "bold"), "\n", _site(crawl)),
            Text.assemble(pages_bar(crawl, progress), "\n", _counts(crawl, progress)),
            NONE if rate is None else f"{rate:,.1f}",
            duration(eta_ms),
            ago(crawl.started_at, now),
        )
        if progress.awaits:
            waits = f"{plain(crawl.crawl_id)[:8]} waits for {plain(progress.awaits)}"
            lines.append(Text(waits, style="yellow"))
    hidden = found.total - len(found.crawls)
    if hidden > 0:
        lines.append(Text(f"{hidden:,} more are not shown", style="dim"))
    return Group(table, *lines)


def pages_bar(crawl: CrawlMetricsResponse, progress: Progress) -> Text:
    """Indexed, failed, waiting and expected pages, each with a character of its own."""
    whole = max(1, progress.expected)
    cells = [
        ("█", "green", crawl.pages_indexed),
        ("x", "red", crawl.pages_failed),
        ("▒", "cyan", crawl.pages_pending),
    ]
    bar, used, pages = Text(), 0, 0
    for character, style, number in cells:
        pages += number
        end = round(BAR_WIDTH * min(1.0, pages / whole))
        bar.append(character * (end - used), style=style)
        used = end
    return bar.append("·" * (BAR_WIDTH - used), style="dim")


def _site(crawl: CrawlMetricsResponse) -> tuple[str, str]:
    return shorten_middle(plain(crawl.crawl_url), URL_WIDTH), "dim"


def _counts(crawl: CrawlMetricsResponse, progress: Progress) -> tuple[str, str]:
    found = f" of {progress.expected:,}" if progress.is_known else ""
    failed = f", {crawl.pages_failed:,} failed" if crawl.pages_failed else ""
    return f"{progress.settled:,}{found}{failed}", "dim"
