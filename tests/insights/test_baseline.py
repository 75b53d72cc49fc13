from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from crawlscope.core.expectations import parse_expectation
from crawlscope.core.vocabulary import CrawlNumber
from crawlscope.database.engine import Database
from crawlscope.insights.baseline import baseline
from crawlscope.insights.schemas import Baseline
from crawlscope.insights.service import Insights
from tests.support.producing import deliver, deliver_pages, document, index_pages

BEGAN = datetime(2026, 1, 31, tzinfo=UTC)


def session(pages: int = 100, failed: int = 0, seconds: float = 60.0, **columns: Any) -> dict[str, Any]:
    """The row of a completed crawl; `embedding` is in milliseconds per page."""
    ended = BEGAN + timedelta(seconds=seconds)
    indexed = pages - failed
    return {
        "status": "completed",
        "started_at": BEGAN,
        "initiated_at": None,
        "completed_at": ended,
        "last_settled_at": ended,
        "total_pages": pages,
        "pages_failed": failed,
        "pages_indexed": indexed,
        **dict.fromkeys(["pages_pending", "pages_unchanged", "pages_empty"], 0),
        **dict.fromkeys(["total_chunking_ms", "total_bm25_ms", "total_qdrant_ms"], 10.0 * indexed),
        "total_embedding_ms": columns.pop("embedding", 100.0) * indexed,
        **columns,
    }


USUAL = [session(pages=100 + n, failed=n, seconds=55 + 2 * n, embedding=95 + n) for n in range(6)]


def found(row: dict[str, Any], earlier: list[dict[str, Any]] = USUAL, *expected: str) -> Baseline:
    compared = baseline(row, earlier, [parse_expectation(each) for each in expected])
    assert compared is not None
    return compared


def regressed(row: dict[str, Any], earlier: list[dict[str, Any]] = USUAL) -> set[str]:
    return {name for name, number in found(row, earlier).numbers.items() if number.regressed}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, set()),
        ({"pages": 80}, {CrawlNumber.PAGES}),
        ({"pages": 130}, {CrawlNumber.PAGES}),
        ({"failed": 12}, {CrawlNumber.FAILED}),
        ({"seconds": 180}, {CrawlNumber.DURATION}),
        ({"seconds": 1}, set()),
        ({"embedding": 200}, {CrawlNumber.EMBEDDING}),
        ({"embedding": 1}, set()),
    ],
)
def test_a_number_outside_of_its_band_is_a_regression(columns: dict[str, Any], expected: set[str]) -> None:
    assert regressed(session(**columns)) == expected


def test_a_regression_is_said_in_one_sentence() -> None:
    [sentence] = found(session(pages=80)).regressions
    assert sentence == "the number of pages is 80; usual is 92 to 113 (median of 6 crawls: 102)"
    [sentence] = found(session(embedding=1_500)).regressions
    assert sentence == "embedding took 1.5 s per page; usual is at most 146 ms (median of 6 crawls: 98 ms)"


def test_too_few_crawls_are_no_baseline() -> None:
    few = found(session(pages=1), USUAL[:4])
    assert (few.runs, few.numbers, few.regressions) == (4, {}, [])


def test_a_crawl_that_has_not_completed_has_none() -> None:
    assert baseline(session(status="in_progress", completed_at=None), USUAL) is None
    assert baseline(session(status="cancelled"), USUAL) is None
    assert baseline(session(pages_pending=1), USUAL) is None


def test_only_the_latest_crawls_count() -> None:
    assert regressed(session(pages=50), [session(pages=50)] * 10 + [session(pages=100)] * 40) == set()


def test_the_duration_compares_with_crawls_of_a_similar_size() -> None:
    small = [session(pages=10, seconds=5)] * 10
    assert CrawlNumber.DURATION not in found(session(seconds=300), small).numbers
    assert CrawlNumber.DURATION in regressed(session(seconds=300), [*small, *USUAL])


def test_unchanged_pages_have_no_times() -> None:
    unchanged = session(pages_unchanged=99, embedding=9_999)
    assert CrawlNumber.EMBEDDING not in found(unchanged).numbers


def test_a_site_that_varies_as_ever_is_rarely_flagged() -> None:
    """By 12 % in each number, in 500 crawls."""
    random = Random(7)

    def vary(value: float) -> float:
        return value * random.lognormvariate(0, 0.12)

    runs = [
        session(round(vary(200)), random.choice([0, 0, 1, 2, 3]), vary(90), embedding=vary(80))
        for _ in range(500)
    ]
    flagged = sum(bool(regressed(runs[n], runs[n + 1 : n + 11])) for n in range(490))
    assert flagged < 0.06 * 490


@pytest.mark.parametrize(
    ("expected", "met"),
    [
        ("pages >= 90 % of the mean of the last 10", False),
        ("pages ≥ 70 % of the median of the last 3", True),
        ("pages >= 80", True),
        ("failed <= 2 %", False),
        ("duration <= 1 min", True),
        ("embedding <= 0.1 s", True),
        ("embedding <= 99 ms", False),
        ("qdrant <= 300 % of the mean of the last 99", True),
    ],
)
def test_expectations_are_met_or_not(expected: str, met: bool) -> None:
    [judged] = found(session(pages=80, failed=8), USUAL, expected).expectations
    assert (judged.met, judged.expectation) == (met, expected)
    assert judged.value is not None


def test_an_expectation_of_too_few_crawls_is_not_judged() -> None:
    [judged] = found(session(), USUAL[:2], "pages >= 90 % of the mean of the last 10").expectations
    assert (judged.met, judged.bound) == (None, None)


async def test_the_detail_of_a_crawl_compares_it_with_its_site(database: Database) -> None:
    for number in range(6):
        for site in ("https://a.example/", "https://b.example/"):
            pages = [f"{site}{page}" for page in range(3 if number == 5 else 8)]
            crawl_id = f"{site} {number}"
            metadata = {"url": site}
            await deliver(database, crawl_id, "crawl.started", metadata=metadata)
            await deliver(database, crawl_id, "crawl.page", [document(each) for each in pages])
            await index_pages(database, crawl_id)
            await deliver(database, crawl_id, "crawl.completed", metadata=metadata)
    await deliver_pages(database, "running", "https://a.example/1")
    expectations = {
        "https://a.example/": [parse_expectation("pages >= 90 % of the mean of the last 10")],
        "*": [parse_expectation("pages >= 1")],
    }
    insights = Insights(database, expectations=expectations)
    crawl = await insights.crawl("https://a.example/ 5")
    assert crawl.baseline is not None
    assert crawl.baseline.runs == 5
    assert crawl.baseline.regressions == [
        "the number of pages is 3; usual is 6 to 10 (median of 5 crawls: 8)"
    ]
    assert [each.met for each in crawl.baseline.expectations] == [False, True]
    assert len((await insights.crawl("https://b.example/ 5")).baseline.expectations) == 1  # type: ignore[union-attr]
    assert (await insights.crawl("https://a.example/ 4")).baseline.numbers == {}  # type: ignore[union-attr]
    assert (await insights.crawl("running")).baseline is None
    assert all(each.baseline is None for each in (await insights.crawls()).crawls)
