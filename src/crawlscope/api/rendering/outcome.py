"""How a crawl ended, in a sentence: whoever crawled it, the same end is told in the same words."""

from collections import Counter

from crawlscope.api.rendering.words import count, plain
from crawlscope.api.report import CrawlReport
from crawlscope.core.vocabulary import CrawlStatus, VerdictName
from crawlscope.insights.schemas import CrawlMetricsResponse

NO_REASON = "no reason was given"


def shown_status(crawl: CrawlMetricsResponse) -> CrawlStatus:
    """As people are told: a crawl of which no page could be had failed, also where Firecrawl completed it."""
    return CrawlStatus.FAILED if brought_nothing(crawl) else crawl.status


def doubt(crawl: CrawlMetricsResponse) -> str | None:
    """What speaks against taking the status for the whole truth; None where nothing does."""
    verdict = crawl.verdict.verdict if crawl.verdict else None
    return verdict.value if verdict in (VerdictName.COMPARING, VerdictName.INCOMPLETE) else None


def brought_nothing(crawl: CrawlMetricsResponse) -> bool:
    failed = crawl.pages_failed or crawl.failures_without_url
    had = crawl.pages_indexed or crawl.pages_pending
    return crawl.status is CrawlStatus.COMPLETED and bool(failed) and not had


def failure(report: CrawlReport) -> str | None:
    """Why the crawl's work is not done, in one line; None where it is."""
    crawl = report.crawl
    name = f"crawl {plain(crawl.crawl_id)}"
    if crawl.status is CrawlStatus.CANCELLED:
        return f"{name} was cancelled{_where(crawl)}, {count(crawl.pages_indexed, 'page')} indexed"
    if crawl.status is CrawlStatus.FAILED:
        return f"{name} failed: {plain(crawl.error_message or '') or _first_failure(report) or NO_REASON}"
    if brought_nothing(crawl):
        return f"{name} failed: {_first_failure(report) or NO_REASON}"
    if not crawl.sealed and crawl.awaits is None:
        return f"{name} {plain(crawl.reservation or 'is not complete')}"
    return None


def shortfall(report: CrawlReport) -> str | None:
    """How many pages are missing of a crawl that did its work, and what to do; None where none is."""
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


def _where(crawl: CrawlMetricsResponse) -> str:
    if crawl.cancel_requested:
        return " on request"
    reason = plain(crawl.error_message or "")
    return f" at Firecrawl ({reason})" if reason else " at Firecrawl"


def _first_failure(report: CrawlReport) -> str | None:
    """As the built-in crawler words it for a start page that cannot be had."""
    pages, total = report.failed.pages, report.failed.total
    if not pages:
        return None
    first = f"{plain(pages[0].url)} could not be crawled: {plain(pages[0].error or NO_REASON)}"
    return first if total == 1 else f"none of its {total:,} pages could be had, the first: {first}"
