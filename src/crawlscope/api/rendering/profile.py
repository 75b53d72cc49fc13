"""The profile of a crawl: what became of its pages and where the time went."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from statistics import quantiles

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.outcome import doubt, shown_status
from crawlscope.api.rendering.words import NONE, count, duration, percent, plain, shorten_middle
from crawlscope.api.report import CrawlReport
from crawlscope.core.vocabulary import CrawlStatus, OperationType
from crawlscope.insights.schemas import (
    CrawlMetricsResponse,
    OperationStats,
    PageListResponse,
    PageRow,
    ReconciliationInfo,
)

STAGES = (
    OperationType.CHUNKING,
    OperationType.EMBEDDING_WAIT,
    OperationType.EMBEDDING,
    OperationType.BM25,
    OperationType.QDRANT,
)
SHOWN_WHERE_MEASURED = {OperationType.EMBEDDING_WAIT}
"""Stages that few pages meet."""
SLOWEST_SHOWN = 5
EXAMPLES_SHOWN = 3
URL_WIDTH = 56
BAR_WIDTH = 12
AT_ONCE_MS = 50.0
STATUS_STYLES = {
    CrawlStatus.IN_PROGRESS: "cyan",
    CrawlStatus.COMPLETED: "green",
    CrawlStatus.FAILED: "red",
    CrawlStatus.CANCELLED: "yellow",
}


@dataclass(frozen=True)
class StageLine:
    name: str
    total_ms: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True)
class FailureGroup:
    """Failed pages of one error code."""

    code: str
    pages: int
    reason: str
    """The most frequent one."""
    urls: tuple[str, ...]


def render_profile(report: CrawlReport) -> RenderableType:
    parts: list[RenderableType] = [
        _headline(report.crawl),
        _facts(report.crawl),
        *_stages(report),
        *_slowest_pages(report.slowest.pages),
        *_failures(report.failed),
    ]
    return Group(*[line for part in parts for line in (part, Text())])


def stage_lines(report: CrawlReport) -> list[StageLine]:
    """Stages in the order a page meets them; empty where no page was indexed."""
    operations = report.crawl.operations
    whole = operations.get(OperationType.WORKER)
    if whole is None or whole.mean_ms is None:
        return []
    stages = [_stage(each, operations.get(each)) for each in stages_shown(operations)]
    return [
        _queue_wait(report),
        *stages,
        _unaccounted(report, whole, stages),
        StageLine(
            stage_name(OperationType.WORKER), whole.total_ms, whole.mean_ms, whole.p50_ms, whole.p95_ms
        ),
    ]


def stages_shown(measured: Collection[str]) -> list[OperationType]:
    return [stage for stage in STAGES if stage in measured or stage not in SHOWN_WHERE_MEASURED]


def stage_name(stage: OperationType) -> str:
    return "worker time" if stage is OperationType.WORKER else stage.replace("_", " ")


def group_failures(pages: Iterable[PageRow]) -> list[FailureGroup]:
    """The largest group first."""
    grouped: defaultdict[str, list[PageRow]] = defaultdict(list)
    for page in pages:
        grouped[page.error_code or "unknown"].append(page)
    groups = [_failure_group(code, members) for code, members in grouped.items()]
    return sorted(groups, key=lambda group: (-group.pages, group.code))


def _failure_group(code: str, pages: list[PageRow]) -> FailureGroup:
    reasons = [plain(page.error) for page in pages if page.error]
    urls = tuple(plain(page.url) for page in pages[:EXAMPLES_SHOWN])
    return FailureGroup(code, len(pages), max(reasons, key=reasons.count) if reasons else "", urls)


def _stage(kind: OperationType, stats: OperationStats | None) -> StageLine:
    if stats is None:
        return StageLine(stage_name(kind), 0.0, None, None, None)
    return StageLine(stage_name(kind), stats.total_ms, stats.mean_ms, stats.p50_ms, stats.p95_ms)


def _queue_wait(report: CrawlReport) -> StageLine:
    """Before the worker's time, and no part of it."""
    waits = [page.queue_wait_ms for page in report.slowest.pages if page.queue_wait_ms is not None]
    mean = sum(waits) / len(waits) if waits and _has_all_pages(report) else None
    wait = report.crawl.queue_wait
    return StageLine("queue wait", None, mean, wait.p50_ms, wait.p95_ms)


def _unaccounted(report: CrawlReport, whole: OperationStats, stages: Iterable[StageLine]) -> StageLine:
    total = max(0.0, whole.total_ms - sum(stage.total_ms or 0.0 for stage in stages))
    rests = [page.unaccounted_ms for page in report.slowest.pages if page.unaccounted_ms is not None]
    middle, high = None, None
    if rests and _has_all_pages(report):
        cuts = quantiles(rests if len(rests) > 1 else rests * 2, n=20, method="inclusive")
        middle, high = cuts[9], cuts[18]
    return StageLine("unaccounted", total, total / max(1, whole.count - whole.failed), middle, high)


def _has_all_pages(report: CrawlReport) -> bool:
    return report.slowest.total <= len(report.slowest.pages)


# ---------------------------------------------------------------------- layout


def _headline(crawl: CrawlMetricsResponse) -> Text:
    status = shown_status(crawl)
    return Text.assemble(
        ("Crawl ", "bold"),
        (plain(crawl.crawl_id), "bold"),
        "  ",
        (status.replace("_", " "), f"bold {STATUS_STYLES[status]}"),
        (f", {doubt(crawl)}" if doubt(crawl) else "", "bold yellow"),
        "\n",
        (plain(crawl.crawl_url), "dim"),
    )


def _facts(crawl: CrawlMetricsResponse) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, words in _facts_of(crawl):
        facts.add_row(name, Text(words))
    return facts


def _facts_of(crawl: CrawlMetricsResponse) -> Iterator[tuple[str, str]]:
    yield "Pages", _page_counts(crawl)
    yield "Crawled", f"in {duration(crawl.duration_ms)}" if crawl.duration_ms is not None else "still running"
    yield "Searchable", _searchable(crawl)
    if crawl.verdict:
        yield "Now", f"{crawl.verdict.verdict}: {plain(crawl.verdict.reason)}"
    if crawl.reservation and not crawl.verdict:
        yield "Pages are", plain(crawl.reservation)
    if crawl.reconciliation:
        yield "Compared", _compared(crawl.reconciliation)
    if crawl.error_message:
        yield "Error", plain(crawl.error_message)


def _page_counts(crawl: CrawlMetricsResponse) -> str:
    kinds = ((crawl.pages_unchanged, "unchanged"), (crawl.pages_empty, "empty"))
    among = ", ".join(f"{number:,} {name}" for number, name in kinds if number)
    words = [f"{crawl.pages_indexed:,} indexed{f' ({among})' if among else ''}"]
    others = (
        (crawl.pages_failed, "failed"),
        (crawl.pages_pending, "pending"),
        (crawl.pages_cancelled, "cancelled"),
    )
    words += [f"{number:,} {name}" for number, name in others if number]
    if crawl.failures_without_url:
        words.append(f"{count(crawl.failures_without_url, 'failure')} that named no page")
    return f"{crawl.total_pages:,}: {', '.join(words)}"


def _searchable(crawl: CrawlMetricsResponse) -> str:
    taken = crawl.time_to_searchable_ms
    if taken is None:
        waiting = f": {count(crawl.pages_pending, 'page')} pending" if crawl.pages_pending else ""
        return f"not all of it yet{waiting}"
    pace = f", {crawl.total_pages * 1000 / taken:.1f} pages/s" if crawl.total_pages and taken else ""
    return f"{_relative_to_the_end(crawl)}{duration(taken)} after the start{pace}"


def _relative_to_the_end(crawl: CrawlMetricsResponse) -> str:
    """The end is told by the crawler's clock, and can come after the last page is searchable."""
    if crawl.searchable_at is None or crawl.completed_at is None:
        return ""
    later_ms = (crawl.searchable_at - crawl.completed_at).total_seconds() * 1000
    if abs(later_ms) < AT_ONCE_MS:
        return "at once: "
    return f"{duration(abs(later_ms))} {'later' if later_ms > 0 else 'before that'}: "


def _compared(found: ReconciliationInfo) -> str:
    brought = f", {count(found.added, 'page')} fetched" if found.added else ""
    note = f": {plain(found.note)}" if found.note else ""
    return f"with what Firecrawl says, {found.state}{brought}{note}"


def _stages(report: CrawlReport) -> Iterator[Table]:
    lines = stage_lines(report)
    if not lines:
        return
    table = _table("Where the time went")
    table.add_column("stage", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=BAR_WIDTH)
    for name in ("mean/page", "p50", "p95"):
        table.add_column(name, justify="right", no_wrap=True)
    whole = lines[-1].total_ms or 0.0
    for line in lines:
        if line is lines[-1]:
            table.add_section()
        table.add_row(*_stage_cells(line, whole), style="bold" if line is lines[-1] else None)
    yield table


def _stage_cells(line: StageLine, whole_ms: float) -> list[RenderableType]:
    shown = line.total_ms is not None
    total = line.total_ms or 0.0
    return [
        line.name,
        duration(line.total_ms),
        percent(total, whole_ms) if shown else NONE,
        Text("█" * round(BAR_WIDTH * total / whole_ms) if whole_ms else "", style="cyan"),
        duration(line.mean_ms),
        duration(line.p50_ms),
        duration(line.p95_ms),
    ]


def _slowest_pages(pages: Iterable[PageRow]) -> Iterator[Table]:
    measured = [page for page in pages if page.total_ms is not None][:SLOWEST_SHOWN]
    if not measured:
        return
    table = _table("Slowest pages")
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("chunks", justify="right", no_wrap=True)
    table.add_column("page", no_wrap=True)
    for page in measured:
        chunks = NONE if page.chunks is None else f"{page.chunks:,}"
        table.add_row(duration(page.total_ms), chunks, Text(shorten_middle(plain(page.url), URL_WIDTH)))
    yield table


def _failures(failed: PageListResponse) -> Iterator[Table]:
    groups = group_failures(failed.pages)
    if not groups:
        return
    missing = failed.total - len(failed.pages)
    table = _table("Failed pages" + (f" ({missing:,} more are not shown)" if missing > 0 else ""))
    table.add_column("pages", justify="right", no_wrap=True)
    table.add_column("error", no_wrap=True, style="red")
    table.add_column("reason and examples", overflow="fold")
    for group in groups:
        table.add_row(f"{group.pages:,}", Text(group.code), _reason_and_examples(group))
    yield table


def _reason_and_examples(group: FailureGroup) -> Text:
    examples = [(f"\n{shorten_middle(url, 50)}", "dim") for url in group.urls]
    return Text.assemble(group.reason or "no reason was given", *examples)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        padding=(0, 1),
        pad_edge=False,
    )
