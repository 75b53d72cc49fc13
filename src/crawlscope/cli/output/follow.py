"""Follows a crawl until every page of it is settled, and shows the progress."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crawlscope.api.client import ServiceClient
from crawlscope.api.rendering.words import NONE, duration, plain
from crawlscope.core.errors import ServiceUnavailable
from crawlscope.insights.progress import Pace, Progress
from crawlscope.insights.schemas import CrawlMetricsResponse, Eta

LINE_SECONDS = 5.0
QUIET_SECONDS = 30.0
BAR_WIDTH = 72

Show = Callable[[Progress, Pace], None]
Recover = Callable[[], Awaitable[None]]


class Notice(Protocol):
    def __call__(self, message: str, /) -> None: ...


async def follow(
    client: ServiceClient, crawl_id: str, show: Show, recover: Recover, notice: Notice
) -> CrawlMetricsResponse:
    """Returns when waiting brings nothing more: usually the crawl is sealed then.

    Calls `recover` while the service is unavailable; it raises to give up. Calls `notice` once if nothing
    happens.
    """
    pace, quiet = Pace(), QuietCrawl(notice)
    while True:
        try:
            async for crawl in client.follow(crawl_id):
                now, progress = time.monotonic(), Progress.of(crawl)
                pace.note(now, progress.settled)
                show(progress, pace)
                quiet.note(now, progress, crawl)
        except ServiceUnavailable:
            await recover()
        else:
            return crawl


@contextmanager
def shown_on(console: Console) -> Iterator[Show]:
    """A live progress bar on a terminal; otherwise a line every few seconds."""
    if console.is_terminal:
        with Live(console=console, transient=True, refresh_per_second=8) as live:
            yield lambda progress, pace: live.update(render_progress(progress, pace))
        return
    next_line = time.monotonic() + LINE_SECONDS

    def print_line(progress: Progress, pace: Pace) -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            next_line += LINE_SECONDS
            console.print(progress_words(progress, pace), soft_wrap=True)

    yield print_line


def ignore(_progress: Progress, _pace: Pace) -> None:
    """Shows nothing."""


def render_progress(progress: Progress, pace: Pace) -> RenderableType:
    """The bar pulses while the number of pages is not known."""
    total = max(1, progress.expected) if progress.is_known else None
    lines = Table.grid()
    lines.add_row(ProgressBar(total=total, completed=progress.settled, width=BAR_WIDTH))
    lines.add_row(numbers(progress, pace))
    if progress.eta:
        lines.add_row(Text(_range(progress.eta), style="dim"))
    if progress.awaits:
        lines.add_row(Text(f"waiting for {plain(progress.awaits)}", style="dim"))
    return lines


def progress_words(progress: Progress, pace: Pace) -> Text:
    """The progress in one line."""
    waiting = f"  waiting for {plain(progress.awaits)}" if progress.awaits else ""
    expected = f", {_range(progress.eta)}" if progress.eta else ""
    return Text.assemble(numbers(progress, pace), (f"{expected}{waiting}", "dim"))


def numbers(progress: Progress, pace: Pace) -> Text:
    rate = pace.pages_per_second
    found = f"{progress.expected:,}" if progress.is_known else NONE
    return Text.assemble(
        f"found {found}  received {progress.received:,}  ",
        (f"indexed {progress.indexed:,}", "green"),
        "  ",
        (f"failed {progress.failed:,}", "red" if progress.failed else ""),
        f"  {NONE if rate is None else f'{rate:.1f}'} pages/s",
        f"  ETA {_from_now(progress.eta.at) if progress.eta else NONE}",
    )


def _range(eta: Eta) -> str:
    return f"between {_from_now(eta.earliest)} and {_from_now(eta.latest)} from now"


def _from_now(moment: datetime) -> str:
    return duration(max((moment - datetime.now(UTC)).total_seconds(), 1.0) * 1000)


class QuietCrawl:
    """Notices once that a crawl makes no progress, with the known reason."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self._last: tuple[int, int, int] | None = None
        self._since = 0.0
        self._noticed = False

    def note(self, now: float, progress: Progress, crawl: CrawlMetricsResponse) -> None:
        counts = (progress.expected, progress.received, progress.settled)
        if counts != self._last:
            self._last, self._since = counts, now
        elif not self._noticed and now - self._since > QUIET_SECONDS:
            self._noticed = True
            reason = crawl.verdict.reason if crawl.verdict else f"it waits for {crawl.awaits}"
            self._notice(f"nothing has happened for {QUIET_SECONDS:.0f} s: {plain(reason)}")
