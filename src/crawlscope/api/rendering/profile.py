"""The profile of a crawl: the results of its pages and the time of each stage."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.client import CrawlReport
from crawlscope.api.rendering.outcome import doubt, shown_status
from crawlscope.api.rendering.words import NONE, count, duration, label, percent, plain, shorten_middle
from crawlscope.core.vocabulary import STAGES, CrawlStatus, OperationType
from crawlscope.insights.progress import pages_per_second
from crawlscope.insights.schemas import (
    Baseline,
    CrawlMetricsResponse,
    DiagnosisResponse,
    IdleTime,
    OperationStats,
    PageListResponse,
    PageRow,
)

SHOWN_WHERE_MEASURED = {OperationType.CHUNKING_WAIT, OperationType.EMBEDDING_WAIT}
"""Stages that not every page passes through."""
SLOWEST_SHOWN = 5
EXAMPLES_SHOWN = 3
URL_WIDTH = 56
BAR_WIDTH = 12
AT_ONCE_MS = 50.0
MIN_IDLE_MS = 1_000.0
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

    @classmethod
    def of(cls, kind: OperationType, stats: OperationStats | None) -> "StageLine":
        if stats is None:
            return cls(label(kind), 0.0, None, None, None)
        return cls(label(kind), stats.spent_ms, stats.mean_ms, stats.p50_ms, stats.p95_ms)


@dataclass(frozen=True)
class FailureGroup:
    """Failed pages of one error code."""

    code: str
    pages: int
    reason: str
    """The most frequent one."""
    urls: tuple[str, ...]


def render_profile(report: CrawlReport) -> RenderableType:
    crawl, status = report.crawl, shown_status(report.crawl)
    headline = Text.assemble(
        ("Crawl ", "bold"),
        (plain(crawl.crawl_id), "bold"),
        "  ",
        (status.replace("_", " "), f"bold {STATUS_STYLES[status]}"),
        (f", {doubt(crawl)}" if doubt(crawl) else "", "bold yellow"),
        "\n",
        (plain(crawl.crawl_url), "dim"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, words in (*_facts(crawl), *_bottleneck(report.diagnosis)):
        facts.add_row(name, Text(words))
    if report.language_notice:
        facts.add_row("Languages", Text(plain(report.language_notice)))
    tables = (_stages(report), _slowest_pages(report.slowest.pages), _failures(report.failed))
    parts: list[RenderableType] = [headline, facts, *[table for table in tables if table]]
    return Group(*[line for part in parts for line in (part, Text())])


def stage_lines(report: CrawlReport) -> list[StageLine]:
    """The stages in the order in which a page passes through them; empty if no page was indexed."""
    operations = report.crawl.operations
    whole = operations.get(OperationType.WORKER)
    if whole is None or whole.mean_ms is None:
        return []
    stages = [StageLine.of(each, operations.get(each)) for each in stages_shown(operations)]
    wait, rest = report.crawl.queue_wait, report.crawl.unaccounted
    total = max(0.0, whole.spent_ms - sum(stage.total_ms or 0.0 for stage in stages))
    mean = total / whole.count
    return [
        StageLine("queue wait", None, wait.mean_ms, wait.p50_ms, wait.p95_ms),  # before the worker's time
        *stages,
        StageLine("unaccounted", total, mean, rest.p50_ms if rest else None, rest.p95_ms if rest else None),
        StageLine.of(OperationType.WORKER, whole),
    ]


def stages_shown(measured: Collection[str]) -> list[OperationType]:
    return [stage for stage in STAGES if stage in measured or stage not in SHOWN_WHERE_MEASURED]


def group_failures(pages: Iterable[PageRow]) -> list[FailureGroup]:
    """The largest group first."""
    grouped: defaultdict[str, list[PageRow]] = defaultdict(list)
    for page in pages:
        grouped[page.error_code or "unknown"].append(page)
    groups = []
    for code, members in grouped.items():
        reasons = [plain(page.error) for page in members if page.error]
        urls = tuple(plain(page.url) for page in members[:EXAMPLES_SHOWN])
        groups.append(FailureGroup(code, len(members), max(reasons, key=reasons.count, default=""), urls))
    return sorted(groups, key=lambda group: (-group.pages, group.code))


def _facts(crawl: CrawlMetricsResponse) -> Iterator[tuple[str, str]]:
    yield "Pages", _page_counts(crawl)
    yield "Crawled", f"in {duration(crawl.duration_ms)}" if crawl.duration_ms is not None else "still running"
    yield "Searchable", _searchable(crawl)
    if crawl.verdict:
        yield "Now", f"{crawl.verdict.verdict}: {plain(crawl.verdict.reason)}"
    if crawl.reservation and not crawl.verdict:
        yield "Pages are", plain(crawl.reservation)
    if crawl.reconciliation:
        found = crawl.reconciliation
        added = f", {count(found.added, 'page')} fetched" if found.added else ""
        note = f": {plain(found.note)}" if found.note else ""
        yield "Compared", f"with what Firecrawl says, {found.state}{added}{note}"
    if crawl.error_message:
        yield "Error", plain(crawl.error_message)
    yield from _irregularities(crawl.baseline)


def _irregularities(found: Baseline | None) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    for sentence in found.regressions:
        yield "Unusual", sentence
    for each in found.expectations:
        if each.met is False and each.value is not None and each.bound is not None:
            yield "Not met", f"{plain(each.expectation)}: {each.value:,.4g}, expected {each.bound:,.4g}"


def _bottleneck(found: DiagnosisResponse) -> Iterator[tuple[str, str]]:
    if not found.stages:  # no page was indexed
        return
    yield "Bound by", f"{label(found.bound_by)}: {plain(found.reason)}"
    if found.change and found.saving_ms is not None:
        yield "To change", f"{found.change} It would save about {duration(found.saving_ms)}."
    if idle := _idle_words(found.idle):
        yield "Idle", f"{idle}; busy for {duration(found.busy_ms)} of {duration(found.wall_ms)}"


def _idle_words(idle: IdleTime) -> str:
    """The causes that cost a second or more, the most costly first."""
    causes = {
        "waiting for the crawler": idle.crawler_ms,
        "pages waiting for a worker": idle.queue_ms,
        "embedder unavailable": idle.embedder_ms,
        "index unavailable": idle.index_ms,
        "database unavailable": idle.database_ms,
    }
    costly = sorted(
        (cause for cause in causes.items() if cause[1] >= MIN_IDLE_MS), key=lambda cause: -cause[1]
    )
    return ", ".join(f"{duration(ms)} {words}" for words, ms in costly)


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
        words.append(f"{count(crawl.failures_without_url, 'failure')} without a URL")
    return f"{crawl.total_pages:,}: {', '.join(words)}"


def _searchable(crawl: CrawlMetricsResponse) -> str:
    """The end is by the crawler's clock, so the last page can be searchable before it."""
    taken = crawl.time_to_searchable_ms
    if taken is None:
        waiting = f": {count(crawl.pages_pending, 'page')} pending" if crawl.pages_pending else ""
        return f"not all of it yet{waiting}"
    if not crawl.pages_indexed:
        return "nothing of it"
    since_end = ""
    if crawl.searchable_at is not None and crawl.completed_at is not None:
        later_ms = (crawl.searchable_at - crawl.completed_at).total_seconds() * 1000
        since_end = f"{duration(abs(later_ms))} {'later' if later_ms > 0 else 'before that'}: "
        if abs(later_ms) < AT_ONCE_MS:
            since_end = "at once: "
    rate = pages_per_second(crawl)
    pace = "" if rate is None else f", {rate:,.1f} pages/s"
    return f"{since_end}{duration(taken)} after the start{pace}"


def _stages(report: CrawlReport) -> Table | None:
    lines = stage_lines(report)
    if not lines:
        return None
    table = _table("Where the time went")
    table.add_column("stage", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=BAR_WIDTH)
    for name in ("mean/page", "p50", "p95"):
        table.add_column(name, justify="right", no_wrap=True)
    whole_ms = lines[-1].total_ms or 0.0
    for line in lines:
        if line is lines[-1]:
            table.add_section()
        total_ms = line.total_ms or 0.0
        table.add_row(
            line.name,
            duration(line.total_ms),
            NONE if line.total_ms is None else percent(total_ms, whole_ms),
            Text("█" * round(BAR_WIDTH * total_ms / whole_ms) if whole_ms else "", style="cyan"),
            duration(line.mean_ms),
            duration(line.p50_ms),
            duration(line.p95_ms),
            style="bold" if line is lines[-1] else None,
        )
    return table


def _slowest_pages(pages: Iterable[PageRow]) -> Table | None:
    measured = [page for page in pages if page.total_ms is not None][:SLOWEST_SHOWN]
    if not measured:
        return None
    table = _table("Slowest pages")
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("chunks", justify="right", no_wrap=True)
    table.add_column("page", no_wrap=True)
    for page in measured:
        chunks = NONE if page.chunks is None else f"{page.chunks:,}"
        table.add_row(duration(page.total_ms), chunks, Text(shorten_middle(plain(page.url), URL_WIDTH)))
    return table


def _failures(failed: PageListResponse) -> Table | None:
    groups = group_failures(failed.pages)
    if not groups:
        return None
    missing = failed.total - len(failed.pages)
    table = _table("Failed pages" + (f" ({missing:,} more are not shown)" if missing > 0 else ""))
    table.add_column("pages", justify="right", no_wrap=True)
    table.add_column("error", no_wrap=True, style="red")
    table.add_column("reason and examples", overflow="fold")
    for group in groups:
        examples = [(f"\n{shorten_middle(url, 50)}", "dim") for url in group.urls]
        reason = Text.assemble(group.reason or "no reason was given", *examples)
        table.add_row(f"{group.pages:,}", Text(group.code), reason)
    return table


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
