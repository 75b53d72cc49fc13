"""Answers of the service with fixed numbers, and how they look on a terminal of 80 columns."""

from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, RenderableType

from crawlscope.api.client import CrawlReport
from crawlscope.core.vocabulary import Bottleneck, Completeness, CrawlStatus, PageState
from crawlscope.insights.schemas import (
    AggregateTiming,
    CrawlMetricsResponse,
    DiagnosisResponse,
    IdleTime,
    OperationStats,
    PageListResponse,
    PageRow,
    QueueWait,
    StageTime,
)

BEGAN = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


def rendered(renderable: RenderableType, width: int = 80) -> list[str]:
    """Line by line, without the blanks that fill them up."""
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def operation(count: int, mean_ms: float, failed: int = 0, failed_ms: float = 0.0) -> OperationStats:
    return OperationStats(
        count=count,
        failed=failed,
        total_ms=(count - failed) * mean_ms,
        mean_ms=mean_ms,
        p50_ms=mean_ms * 0.9,
        p95_ms=mean_ms * 2,
        p99_ms=mean_ms * 3,
        max_ms=mean_ms * 4,
        failed_ms=failed_ms,
    )


def crawl_metrics(**changes: Any) -> CrawlMetricsResponse:
    """A completed crawl: 60 pages, one failed."""
    numbers: dict[str, Any] = {
        "crawl_id": "0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11",
        "crawl_url": "https://docs.example.com/",
        "status": CrawlStatus.COMPLETED,
        "success": True,
        "started_at": BEGAN,
        "completed_at": BEGAN + timedelta(seconds=12),
        "duration_ms": 12_000.0,
        "e2e_duration_ms": 12_000.0,
        "total_pages": 60,
        "pages_indexed": 59,
        "pages_failed": 1,
        "aggregate_timing": AggregateTiming(
            chunking_ms=590, embedding_ms=47_200, qdrant_ms=1_180, bm25_ms=118
        ),
        "per_page_metrics": None,
        "error_message": None,
        "extra_metadata": None,
        "initiated_at": BEGAN,
        "pages_pending": 0,
        "pages_unchanged": 2,
        "pages_empty": 1,
        "pages_cancelled": 0,
        "failures_without_url": 0,
        "searchable_at": BEGAN + timedelta(seconds=30),
        "time_to_searchable_ms": 30_000.0,
        "operations": {
            "worker": operation(59, 850),
            "chunking": operation(59, 10),
            "embedding": operation(59, 800),
            "qdrant": operation(59, 20),
            "bm25": operation(59, 2),
        },
        "queue_wait": QueueWait(mean_ms=9_000, p50_ms=8_000, p95_ms=15_000, max_ms=16_000),
        "last_fact_at": BEGAN + timedelta(seconds=30),
        "lacks": [],
        "sealed": True,
        "completeness": Completeness.EXACT,
        "reservation": None,
        "awaits": None,
        "verdict": None,
        "reconciliation": None,
        "engine": "builtin",
        "found": 60,
        "fetched": 60,
    }
    return CrawlMetricsResponse(**(numbers | changes))


def diagnosis(**changes: Any) -> DiagnosisResponse:
    """The diagnosis of the same crawl: the embedder bounds it."""
    facts: dict[str, Any] = {
        "crawl_id": "0b7f4b1e-6f0a-4b6e-9d55-1c0f4a7b2e11",
        "bound_by": Bottleneck.EMBEDDER,
        "reason": "Pages waited or were indexed for 28.0 s, and 94% of the workers' time was embedding.",
        "change": "Use a faster embedder.",
        "saving_ms": 13_160.0,
        "evidence": {"late_ms": 28_000.0},
        "others": [],
        "wall_ms": 30_000.0,
        "busy_ms": 28_500.0,
        "late_ms": 28_000.0,
        "idle": IdleTime(crawler_ms=1_400, queue_ms=100, embedder_ms=0, index_ms=0, database_ms=0),
        "stages": {"embedding": StageTime(work_ms=47_200, wall_ms=27_000, concurrency=1.75)},
    }
    return DiagnosisResponse(**(facts | changes))


def crawl_report(
    crawl: CrawlMetricsResponse,
    slowest: PageListResponse | None = None,
    failed: PageListResponse | None = None,
    found: DiagnosisResponse | None = None,
) -> CrawlReport:
    return CrawlReport(crawl, slowest or page_list(), failed or page_list(), found or diagnosis(stages={}))


def page_row(number: int, **changes: Any) -> PageRow:
    facts: dict[str, Any] = {
        "url": f"https://docs.example.com/page-{number}",
        "final_url": f"https://docs.example.com/page-{number}",
        "state": PageState.INDEXED,
        "attempts": 1,
        "status_code": 200,
        "error_code": None,
        "error": None,
        "queued_at": BEGAN,
        "settled_at": BEGAN + timedelta(seconds=1),
        "queue_wait_ms": 100.0 * number,
        "total_ms": 1_000.0 - number,
        "unaccounted_ms": 10.0 * number,
        "stages": {},
        "chunks": number,
    }
    return PageRow(**(facts | changes))


def failed_row(number: int, code: str | None, error: str | None) -> PageRow:
    return page_row(
        number,
        state=PageState.FAILED,
        error_code=code,
        error=error,
        total_ms=None,
        unaccounted_ms=None,
        chunks=None,
    )


def page_list(*pages: PageRow, total: int | None = None) -> PageListResponse:
    return PageListResponse(pages=list(pages), total=len(pages) if total is None else total)
