"""Whether it is safe to search a crawl yet, in words."""

from collections.abc import Iterator
from dataclasses import dataclass

from crawlscope.api.rendering.words import count, plain
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.insights.schemas import CrawlMetricsResponse


@dataclass(frozen=True)
class Searchability:
    safe: bool
    """A search finds all pages of the crawl."""
    sealed: bool
    """It has ended, its pages are settled, and it was compared with Firecrawl if one is configured."""
    reasons: tuple[str, ...]
    """Why it is not safe, or what is missing although it is safe."""
    final: bool
    """Whether waiting brings nothing more."""

    @property
    def sentence(self) -> str:
        because = f": {'; '.join(self.reasons)}" if self.reasons else ""
        if self.safe:
            return f"Safe to search{because}."
        if self.sealed:
            return f"Nothing to search{because}."
        return f"{'Not safe to search' if self.final else 'Not safe to search yet'}{because}."


def searchability(crawl: CrawlMetricsResponse) -> Searchability:
    final, with_text = crawl.awaits is None, crawl.pages_indexed - crawl.pages_empty
    if not crawl.sealed:
        reasons = tuple(_reasons_to_wait(crawl, with_text))
        return Searchability(safe=False, sealed=False, reasons=reasons, final=final)
    missing = tuple(_missing(crawl))
    if not with_text:
        nothing = "none of its pages has text" if crawl.total_pages else "it has no pages"
        return Searchability(safe=False, sealed=True, reasons=(nothing, *missing), final=final)
    return Searchability(safe=True, sealed=True, reasons=missing, final=final)


def _reasons_to_wait(crawl: CrawlMetricsResponse, with_text: int) -> Iterator[str]:
    if crawl.pages_pending:
        yield f"{count(crawl.pages_pending, 'page')} not indexed yet"
    if crawl.status is CrawlStatus.IN_PROGRESS:
        yield "it has not ended and can bring more pages"
    if crawl.verdict:
        yield plain(crawl.verdict.reason)
    if with_text:
        yield f"{count(with_text, 'page')} can be found already"


def _missing(crawl: CrawlMetricsResponse) -> Iterator[str]:
    if crawl.reservation:
        yield plain(crawl.reservation)
    if crawl.status in (CrawlStatus.FAILED, CrawlStatus.CANCELLED):
        reason = f" ({plain(crawl.error_message)})" if crawl.error_message else ""
        if crawl.cancel_requested and crawl.status is CrawlStatus.CANCELLED:
            reason = " on request"
        yield f"it {'failed' if crawl.status is CrawlStatus.FAILED else 'was cancelled'}{reason}"
    failed = crawl.pages_failed + crawl.failures_without_url
    if failed:
        yield f"{count(failed, 'page')} failed and cannot be found"
    if crawl.pages_cancelled:
        yield f"{count(crawl.pages_cancelled, 'page')} dropped when it was cancelled"
