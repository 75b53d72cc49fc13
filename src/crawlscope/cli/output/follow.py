"""Follows a crawl until every page of it is settled, and shows how it comes along."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crawlscope.api.client import ServiceClient
from crawlscope.api.rendering.words import NONE, duration, plain
from crawlscope.core.errors import ServiceUnavailable
from crawlscope.insights.progress import Pace, Progress, is_settled, poll_interval
from crawlscope.insights.responses import CrawlMetricsResponse

LINE_SECONDS = 5.0
QUIET_SECONDS = 30.0
BAR_WIDTH = 72

Show = Callable[[Progress, Pace], None]
Recover = Callable[[], Awaitable[None]]


class Notice(Protocol):
    def __call__(self, words: str, /) -> None: ...


async def follow(
    client: ServiceClient, crawl_id: str, show: Show, recover: Recover, notice: Notice
) -> CrawlMetricsResponse:
    """Returns when waiting brings nothing more: the crawl is sealed, as a rule.

    `recover` is called while the service is away, and raises to give up. `notice` is told, once, that
    nothing happens.
    """
    pace, quiet = Pace(), _Quiet(notice)
    while True:
        asked = time.monotonic()
        try:
            crawl = await client.crawl(crawl_id)
        except ServiceUnavailable:
            await recover()
            continue
        now = time.monotonic()
        progress = Progress.of(crawl)
        pace.note(now, progress.settled)
        show(progress, pace)
        if is_settled(crawl):
            return crawl
        quiet.note(now, progress, crawl)
        await asyncio.sleep(poll_interval(now - asked))


@contextmanager
def shown_on(console: Console) -> Iterator[Show]:
    """A live bar on a terminal; elsewhere a line every few seconds."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        yield lambda progress, pace: live.update(render_progress(progress, pace))


def ignore(_progress: Progress, _pace: Pace) -> None:
    """Shows nothing."""


def render_progress(progress: Progress, pace: Pace) -> RenderableType:
    """The bar only pulses while nobody knows how many pages there are."""
    total = max(1, progress.expected) if progress.is_known else None
    lines = Table.grid()
    lines.add_row(ProgressBar(total=total, completed=progress.settled, width=BAR_WIDTH))
    lines.add_row(numbers(progress, pace))
    if progress.awaits:
        lines.add_row(Text(f"waiting for {plain(progress.awaits)}", style="dim"))
    return lines


def progress_words(progress: Progress, pace: Pace) -> Text:
    """In one line."""
    if not progress.awaits:
        return numbers(progress, pace)
    return Text.assemble(numbers(progress, pace), (f"  waiting for {plain(progress.awaits)}", "dim"))


def numbers(progress: Progress, pace: Pace) -> Text:
    rate, left = pace.pages_per_second, pace.seconds_left(progress)
    found = f"{progress.expected:,}" if progress.is_known else NONE
    return Text.assemble(
        f"found {found}  received {progress.received:,}  ",
        (f"indexed {progress.indexed:,}", "green"),
        "  ",
        (f"failed {progress.failed:,}", "red" if progress.failed else ""),
        f"  {NONE if rate is None else f'{rate:.1f}'} pages/s",
        f"  ETA {NONE if left is None else duration(max(left, 1.0) * 1000)}",
    )


class _Lines:
    """For logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = time.monotonic() + LINE_SECONDS

    def __call__(self, progress: Progress, pace: Pace) -> None:
        if time.monotonic() >= self._next:
            self._next += LINE_SECONDS
            self._console.print(progress_words(progress, pace), soft_wrap=True)


class _Quiet:
    """Says once that a crawl does not move, and what is known of why."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self._last: tuple[int, int, int] | None = None
        self._since = 0.0
        self._told = False

    def note(self, now: float, progress: Progress, crawl: CrawlMetricsResponse) -> None:
        moved = (progress.expected, progress.received, progress.settled)
        if moved != self._last:
            self._last, self._since = moved, now
        elif not self._told and now - self._since > QUIET_SECONDS:
            self._told = True
            reason = crawl.verdict.reason if crawl.verdict else f"it waits for {crawl.awaits}"
            self._notice(f"nothing has happened for {QUIET_SECONDS:.0f} s: {plain(reason)}")
