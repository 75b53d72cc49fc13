"""Whether a crawl differs from its site's last crawls: pure rules, no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from crawlscope.core.expectations import Expectation
from crawlscope.core.vocabulary import CrawlNumber, CrawlStatus
from crawlscope.insights.schemas import Baseline, BaselineNumber, MetExpectation
from crawlscope.insights.sealing import Row, time_to_searchable_ms

MIN_RUNS = 5
"""Fewer say little about what is usual."""
MAX_RUNS = 10
"""Only the latest ones count: a site that stays different is reported for some crawls."""
MIN_EXPECTED_RUNS = 3
"""Fewer earlier crawls give no mean to expect something of."""
SPREADS = 4.0
SPREAD_PER_DEVIATION = 1.4826
"""The standard deviation of a normal distribution, in median absolute deviations."""
LIKE_IN_PAGES = 2.0
"""The durations of crawls whose numbers of pages differ by more than this factor do not compare."""
MIN_INDEXED = 3
"""Times per page of fewer pages vary too much."""
STAGE_TOTALS = {
    CrawlNumber.CHUNKING: "total_chunking_ms",
    CrawlNumber.EMBEDDING: "total_embedding_ms",
    CrawlNumber.BM25: "total_bm25_ms",
    CrawlNumber.QDRANT: "total_qdrant_ms",
}
Numbers = Mapping[CrawlNumber, float]
"""The known numbers of one crawl."""


@dataclass(frozen=True)
class Band:
    """The least distance from the median that is unusual: small numbers vary by more than their own size."""

    least: float
    share: float = 0.0
    """A share of the median."""
    below: bool = False
    """Whether a smaller number is a regression, too."""


STAGE_BAND = Band(least=5.0, share=0.5)
BANDS = {
    CrawlNumber.PAGES: Band(least=2.0, share=0.1, below=True),
    CrawlNumber.FAILED: Band(least=5.0),
    CrawlNumber.DURATION: Band(least=5_000.0, share=1.0),
    **dict.fromkeys(STAGE_TOTALS, STAGE_BAND),
}
TEMPLATES = {
    CrawlNumber.PAGES: "the number of pages is {}",
    CrawlNumber.FAILED: "{} of the pages failed",
    CrawlNumber.DURATION: "searchable after {}",
    **{number: f"{number.removesuffix('_ms')} took {{}} per page" for number in STAGE_TOTALS},
}


def numbers_of(session: Row) -> Numbers:
    """The numbers of a row of `crawl_sessions`. The times of stages are means over the pages that were
    embedded."""
    found: dict[CrawlNumber, float] = {CrawlNumber.PAGES: session["total_pages"]}
    if session["total_pages"]:
        found[CrawlNumber.FAILED] = 100 * session["pages_failed"] / session["total_pages"]
    if (took_ms := time_to_searchable_ms(session)) is not None:
        found[CrawlNumber.DURATION] = took_ms
    embedded = session["pages_indexed"] - session["pages_unchanged"] - session["pages_empty"]
    if embedded >= MIN_INDEXED:
        found |= {number: session[total] / embedded for number, total in STAGE_TOTALS.items()}
    return found


def baseline(
    session: Row, earlier: Sequence[Row], expectations: Sequence[Expectation] = ()
) -> Baseline | None:
    """The baseline of a crawl that is completed and searchable; None for any other.

    `earlier` are the completed crawls of its site before it, the latest first.
    """
    if session["status"] != CrawlStatus.COMPLETED or time_to_searchable_ms(session) is None:
        return None
    numbers, runs = numbers_of(session), [numbers_of(each) for each in earlier]
    compared = {number: found for number in numbers if (found := _compare(number, numbers, runs))}
    return Baseline(
        runs=min(len(runs), MAX_RUNS),
        numbers={number.value: found for number, found in compared.items()},
        regressions=[_sentence(number, found) for number, found in compared.items() if found.regressed],
        expectations=[_judge(each, numbers, runs) for each in expectations],
    )


def _compare(number: CrawlNumber, numbers: Numbers, runs: Sequence[Numbers]) -> BaselineNumber | None:
    """None with too few runs that have the number, and for a duration are of a similar size."""
    value, pages, band = numbers[number], numbers[CrawlNumber.PAGES], BANDS[number]
    usual = [
        run[number]
        for run in runs
        if number in run
        and (
            number is not CrawlNumber.DURATION
            or max(run[CrawlNumber.PAGES], pages) <= LIKE_IN_PAGES * min(run[CrawlNumber.PAGES], pages)
        )
    ][:MAX_RUNS]
    if len(usual) < MIN_RUNS:
        return None
    middle = median(usual)
    deviation = median(abs(each - middle) for each in usual)
    distance = max(SPREADS * SPREAD_PER_DEVIATION * deviation, band.share * middle, band.least)
    low, high = max(0.0, middle - distance) if band.below else None, middle + distance
    regressed = value > high or (low is not None and value < low)
    return BaselineNumber(
        value=value, median=middle, low=low, high=high, runs=len(usual), regressed=regressed
    )


def _sentence(number: CrawlNumber, found: BaselineNumber) -> str:
    usual = f"at most {_shown(number, found.high)}"
    if found.low is not None:
        usual = f"{_shown(number, found.low)} to {_shown(number, found.high)}"
    said = TEMPLATES[number].format(_shown(number, found.value))
    return f"{said}; usual is {usual} (median of {found.runs} crawls: {_shown(number, found.median)})"


def _shown(number: CrawlNumber, value: float) -> str:
    match number:
        case CrawlNumber.PAGES:
            return f"{value:,.0f}"
        case CrawlNumber.FAILED:
            return f"{value:.1f} %"
        case _:
            return f"{value:,.0f} ms" if value < 1_000 else f"{value / 1_000:,.1f} s"


def _judge(expected: Expectation, numbers: Numbers, runs: Sequence[Numbers]) -> MetExpectation:
    """Null if the number is not known, or if there are too few earlier crawls."""
    value = numbers.get(expected.number)
    bound: float | None = expected.bound
    if expected.last is not None:
        known = [run[expected.number] for run in runs[: expected.last] if expected.number in run]
        usual = median(known) if expected.of_median else mean(known) if known else 0.0
        bound = expected.bound * usual if len(known) >= MIN_EXPECTED_RUNS else None
    met = None
    if value is not None and bound is not None:
        met = value >= bound if expected.at_least else value <= bound
    return MetExpectation(expectation=expected.text, met=met, value=value, bound=bound)
