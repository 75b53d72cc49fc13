"""Two crawls side by side on a terminal."""

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.profile import STATUS_STYLES, stage_name, stages_shown
from crawlscope.api.rendering.words import NONE, duration, plain, shorten_middle
from crawlscope.core.vocabulary import OperationType
from crawlscope.insights.schemas import Compared, ComparedCrawl, CrawlComparison, CrawlNumbers

URL_WIDTH = 74
FIRST_WIDTH = 16
RATIO = "A ÷ B"
UNKNOWN = Compared(a=None, b=None, ratio=None)

Write = Callable[[float | None], str]


def render_comparison(found: CrawlComparison) -> RenderableType:
    headlines = [_headline("A", found.a), _headline("B", found.b)]
    return Group(*headlines, Text(), _numbers(found.numbers), Text(), _stages(found))


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
    table = _table("mean per page", "A", "B", RATIO, "p95", "A", "B", RATIO)
    table.add_row("queue wait", *_cells(UNKNOWN, duration), "", *_cells(found.queue_wait.p95_ms, duration))
    for stage in (*stages_shown(found.stages), OperationType.WORKER):
        compared = found.stages.get(stage)
        mean, p95 = (compared.mean_ms, compared.p95_ms) if compared else (UNKNOWN, UNKNOWN)
        table.add_row(stage_name(stage), *_cells(mean, duration), "", *_cells(p95, duration))
    return table


def _cells(compared: Compared, write: Write) -> list[str]:
    ratio = NONE if compared.ratio is None else f"{compared.ratio:,.2f}"
    return [write(compared.a), write(compared.b), ratio]


def _whole(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column(first, no_wrap=True, min_width=FIRST_WIDTH)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
