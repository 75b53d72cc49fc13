"""The same outcome has the same words for every crawler."""

from typing import Any

import pytest

from crawlscope.api.client import CrawlReport
from crawlscope.api.rendering.outcome import failure, shortfall, shown_status
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.insights.schemas import PageRow
from tests.support.metrics_examples import crawl_metrics, crawl_report, failed_row, page_list

URL = "https://docs.example.com/page-1"
WORDS = "could not be crawled: connection refused"
NOTHING: dict[str, Any] = {"total_pages": 1, "pages_indexed": 0, "pages_failed": 1}
REFUSED = failed_row(1, "connection_refused", "connection refused")


def report(*failed: PageRow, **changes: Any) -> CrawlReport:
    return crawl_report(crawl_metrics(**{"crawl_id": "c-1", **changes}), failed=page_list(*failed))


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (report(), None),
        (report(sealed=False, awaits="the comparison with Firecrawl"), None),
        (
            report(sealed=False, reservation="incomplete: 2 are missing: https://a.example/1"),
            "crawl c-1 incomplete: 2 are missing: https://a.example/1",
        ),
        (report(REFUSED), None),
        (
            report(
                status=CrawlStatus.FAILED, error_message=f"{URL} could not be crawled:\nconnection refused"
            ),
            f"crawl c-1 failed: {URL} could not be crawled: connection refused",
        ),
        (report(REFUSED, **NOTHING), f"crawl c-1 failed: {URL} could not be crawled: connection refused"),
        (
            report(REFUSED, failed_row(2, "x", "y"), **{**NOTHING, "total_pages": 2, "pages_failed": 2}),
            f"crawl c-1 failed: none of its 2 pages could be had, the first: {URL} {WORDS}",
        ),
        (
            report(**{**NOTHING, "total_pages": 0, "pages_failed": 0, "failures_without_url": 1}),
            "crawl c-1 failed: no reason was given",
        ),
        (report(status=CrawlStatus.FAILED), "crawl c-1 failed: no reason was given"),
        (
            report(status=CrawlStatus.CANCELLED, cancel_requested=True, pages_indexed=12),
            "crawl c-1 was cancelled on request, 12 pages indexed",
        ),
        (
            report(status=CrawlStatus.CANCELLED, pages_indexed=1),
            "crawl c-1 was cancelled at Firecrawl, 1 page indexed",
        ),
        (
            report(status=CrawlStatus.CANCELLED, error_message="out of credits", pages_indexed=0),
            "crawl c-1 was cancelled at Firecrawl (out of credits), 0 pages indexed",
        ),
    ],
)
def test_why_the_work_is_not_done(ended: CrawlReport, words: str | None):
    assert failure(ended) == words


def test_pages_that_failed_in_a_crawl_that_did_its_work():
    limited = [failed_row(number, "http_429", "slow down") for number in range(16)]
    assert shortfall(report(*limited, total_pages=21, pages_failed=16)) == (
        "16 of 21 pages failed (16 http_429). Try them again: crawlscope retry c-1 --rescrape"
    )
    many = [failed_row(number, f"code_{number}", "no") for number in range(5)]
    assert "(1 code_0, 1 code_1, 1 code_2, …)" in (shortfall(report(*many, pages_failed=5)) or "")


@pytest.mark.parametrize(
    "ended",
    [
        report(pages_failed=0),
        report(REFUSED, **NOTHING),
        report(REFUSED, status=CrawlStatus.CANCELLED),
        report(REFUSED, status=CrawlStatus.FAILED),
    ],
)
def test_where_nothing_is_missing_or_more_is_wrong_that_is_not_said(ended: CrawlReport):
    assert shortfall(ended) is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, CrawlStatus.COMPLETED),
        (NOTHING, CrawlStatus.FAILED),
        ({**NOTHING, "pages_failed": 0, "failures_without_url": 2}, CrawlStatus.FAILED),
        ({**NOTHING, "pages_pending": 1}, CrawlStatus.COMPLETED),
        ({**NOTHING, "pages_failed": 0}, CrawlStatus.COMPLETED),
        ({**NOTHING, "status": CrawlStatus.CANCELLED}, CrawlStatus.CANCELLED),
        ({**NOTHING, "status": CrawlStatus.IN_PROGRESS}, CrawlStatus.IN_PROGRESS),
    ],
)
def test_a_crawl_of_which_no_page_could_be_had_has_failed(changes: dict[str, Any], status: CrawlStatus):
    assert shown_status(crawl_metrics(**changes)) is status
