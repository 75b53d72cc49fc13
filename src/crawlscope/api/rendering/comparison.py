"""Two crawls side by side on a terminal."""

from collections.abc import Callable
from math import log2

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.client import ComparisonReport
from crawlscope.api.rendering.changes import render_changes
from crawlscope.api.rendering.profile import STATUS_STYLES, stages_shown
from crawlscope.api.rendering.words import NONE, duration, label, plain, ratio, shorten_middle
from crawlscope.core.vocabulary import OperationType
from crawlscope.insights.schemas import Compared, ComparedCrawl, CrawlComparison, CrawlNumbers

URL_WIDTH = 74
FIRST_WIDTH = 16
RATIO = "A ÷ B"
BAR_HALF = 4
UNKNOWN = Compared(a=None, b=None, ratio=None)

Write = Callable[[float | None], str]


def render_comparison(found: CrawlComparison) -> RenderableType:
    headlines = [_headline("A", found.a), _headline("B", found.b)]
    return Group(*headlines, Text(), _numbers(found.numbers), Text(), _stages(found))


def render_report(found: ComparisonReport) -> RenderableType:
    return Group(render_comparison(found), Text(), render_changes(found.page_changes))


def _headline(letter: str, crawl: ComparedCrawl) -> Text:
    status = crawl.status.replace("_", " ")
    return Text.assemble(
        (f"{letter}  {plain(crawl.crawl_id)}", "bold"),
        "  ",
        (status, f"bold {STATUS_STYLES[crawl.status]}"),
        "\n   ",
        (shorten_middle(plain(crawl.crawl_url), URL_WIDTH), "dim"),
    )


def _numbers(numbers: CrawlNumbers) -> Table:
    rows: list[tuple[str, Compared, Write]] = [
        ("pages", numbers.total_pages, _whole),
        ("indexed", numbers.pages_indexed, _whole),
        ("unchanged", numbers.pages_unchanged, _whole),
        ("failed", numbers.pages_failed, _whole),
        ("crawled in", numbers.duration_ms, duration),
        ("searchable after", numbers.time_to_searchable_ms, duration),
        ("pages/s", numbers.pages_per_second, lambda rate: NONE if rate is None else f"{rate:,.1f}"),
    ]
    table = _table("", "A", "B", RATIO)
    for name, compared, write in rows:
        table.add_row(name, *_cells(compared, write))
    return table


def _stages(found: CrawlComparison) -> Table:
    """`worker time` is the sum of a page's stages; the queue wait comes before it."""
    table = _table("mean per page", "A", "B", RATIO, "", "p95", "A", "B", RATIO)
    stages = (*stages_shown(found.stages), OperationType.WORKER)
    rows = [
        ("queue wait", found.queue_wait),
        *((label(each), found.stages.get(each)) for each in stages),
    ]
    for name, compared in rows:
        mean, p95 = (compared.mean_ms, compared.p95_ms) if compared else (UNKNOWN, UNKNOWN)
        bar = ratio_bar(mean.ratio)
        table.add_row(name, *_cells(mean, duration), bar, "", *_cells(p95, duration))
    return table


def ratio_bar(times: float | None) -> Text:
    """A bar to the right if A is slower, to the left if it is faster; full at a factor of 4."""
    if not times:
        return Text(" " * (2 * BAR_HALF + 1))
    size = min(BAR_HALF, round(abs(log2(times)) / 2 * BAR_HALF))
    bar, rest = "█" * size, " " * (BAR_HALF - size)
    if times > 1:
        return Text(f"{' ' * BAR_HALF}│").append(bar, style="red").append(rest)
    return Text(rest).append(bar, style="green").append(f"│{' ' * BAR_HALF}")


def _cells(compared: Compared, write: Write) -> list[str]:
    return [write(compared.a), write(compared.b), NONE if compared.ratio is None else ratio(compared.ratio)]


def _whole(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column(first, no_wrap=True, min_width=FIRST_WIDTH)
    for name in others:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    return table
