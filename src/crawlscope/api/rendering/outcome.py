"""The outcome of a crawl in a sentence, in the same words for every crawler."""

from collections import Counter

from crawlscope.api.client import CrawlReport
from crawlscope.api.rendering.words import count, plain
from crawlscope.core.vocabulary import CrawlStatus, VerdictName
from crawlscope.insights.schemas import CrawlMetricsResponse

NO_REASON = "no reason was given"


def shown_status(crawl: CrawlMetricsResponse) -> CrawlStatus:
    """The status for people: a crawl without any page has failed, even if Firecrawl completed it."""
    return CrawlStatus.FAILED if brought_nothing(crawl) else crawl.status


def doubt(crawl: CrawlMetricsResponse) -> str | None:
    """Why the status is not the final word on the crawl; None if it is."""
    verdict = crawl.verdict.verdict if crawl.verdict else None
    return verdict.value if verdict in (VerdictName.COMPARING, VerdictName.INCOMPLETE) else None


def brought_nothing(crawl: CrawlMetricsResponse) -> bool:
    failed = crawl.pages_failed or crawl.failures_without_url
    had = crawl.pages_indexed or crawl.pages_pending
    return crawl.status is CrawlStatus.COMPLETED and bool(failed) and not had


def failure(report: CrawlReport) -> str | None:
    """In one line, why the crawl did not succeed; None if it did."""
    crawl = report.crawl
    name = f"crawl {plain(crawl.crawl_id)}"
    if crawl.status is CrawlStatus.CANCELLED:
        reason = plain(crawl.error_message or "")
        by = " on request" if crawl.cancel_requested else f" at Firecrawl{f' ({reason})' if reason else ''}"
        return f"{name} was cancelled{by}, {count(crawl.pages_indexed, 'page')} indexed"
    if crawl.status is CrawlStatus.FAILED:
        return f"{name} failed: {plain(crawl.error_message or '') or _first_failure(report) or NO_REASON}"
    if brought_nothing(crawl):
        return f"{name} failed: {_first_failure(report) or NO_REASON}"
    if not crawl.sealed and crawl.awaits is None:
        return f"{name} {plain(crawl.reservation or 'is not complete')}"
    return None


def shortfall(report: CrawlReport) -> str | None:
    """The failed pages of a successful crawl, and what to do; None if no page failed."""
    crawl = report.crawl
    if not crawl.pages_failed or crawl.status is not CrawlStatus.COMPLETED or brought_nothing(crawl):
        return None
    codes = Counter(page.error_code or "unknown" for page in report.failed.pages)
    among = ", ".join(f"{number:,} {plain(code)}" for code, number in codes.most_common(3))
    return (
        f"{crawl.pages_failed:,} of {count(crawl.total_pages, 'page')} failed ({among}"
        f"{', …' if len(codes) > 3 else ''}). "
        f"Try them again: crawlscope retry {plain(crawl.crawl_id)} --rescrape"
    )


def _first_failure(report: CrawlReport) -> str | None:
    """In the built-in crawler's words for a start page that it cannot fetch."""
    pages, total = report.failed.pages, report.failed.total
    if not pages:
        return None
    first = f"{plain(pages[0].url)} could not be crawled: {plain(pages[0].error or NO_REASON)}"
    return first if total == 1 else f"none of its {total:,} pages could be had, the first: {first}"
