"""Compares two crawls: their numbers and the time of each stage."""

from typing import TypeVar

from pydantic import BaseModel

from crawlscope.core.vocabulary import STAGES, OperationType
from crawlscope.insights.progress import pages_per_second
from crawlscope.insights.schemas import (
    Compared,
    ComparedCrawl,
    CrawlComparison,
    CrawlMetricsResponse,
    CrawlNumbers,
    QueueWaitComparison,
    StageComparison,
)

Comparison = TypeVar("Comparison", bound=BaseModel)
Number = int | float | None

STAGE_ORDER: list[str] = [*STAGES, OperationType.WORKER, OperationType.WEBHOOK]


def compare(a: CrawlMetricsResponse, b: CrawlMetricsResponse) -> CrawlComparison:
    """Each ratio is the number of `a` divided by the number of `b`."""
    paces = _compared(pages_per_second(a), pages_per_second(b))
    measured = {*a.operations, *b.operations}
    stages = [stage for stage in STAGE_ORDER if stage in measured] + sorted(measured.difference(STAGE_ORDER))
    return CrawlComparison(
        a=_named(a),
        b=_named(b),
        numbers=_side_by_side(CrawlNumbers, a, b, pages_per_second=paces),
        stages={
            name: _side_by_side(StageComparison, a.operations.get(name), b.operations.get(name))
            for name in stages
        },
        queue_wait=_side_by_side(QueueWaitComparison, a.queue_wait, b.queue_wait),
    )


def _side_by_side(
    comparison: type[Comparison], a: BaseModel | None, b: BaseModel | None, **known: Compared
) -> Comparison:
    """Compares each field of `comparison` except the `known` ones; missing values are null."""
    names = comparison.model_fields.keys() - known.keys()
    return comparison(
        **known, **{name: _compared(getattr(a, name, None), getattr(b, name, None)) for name in names}
    )


def _compared(a: Number, b: Number) -> Compared:
    return Compared(a=a, b=b, ratio=None if a is None or not b else a / b)


def _named(crawl: CrawlMetricsResponse) -> ComparedCrawl:
    return ComparedCrawl.model_validate(crawl, from_attributes=True)
