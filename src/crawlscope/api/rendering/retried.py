"""The result of retrying failed pages, in words."""

from collections import Counter
from collections.abc import Iterator

from crawlscope.api.rendering.words import count, plain
from crawlscope.core.vocabulary import NotRetried
from crawlscope.crawls.schemas import PagesQueued

MAX_SHOWN = 20
BECAUSE = {
    NotRetried.NOT_RECEIVED: "failed before any content was received",
    NotRetried.DROPPED: "dropped when the crawl was cancelled",
    NotRetried.PENDING: "queued or being indexed already",
    NotRetried.NOT_FAILED: "did not fail",
    NotRetried.UNKNOWN: "no page of this crawl has this URL",
    NotRetried.NO_URL: "failed without naming a URL",
    NotRetried.NOT_TAKEN: "not taken by the crawler",
}


def retried_lines(retried: PagesQueued) -> Iterator[str]:
    """The retried pages, then the others by reason, each named."""
    if retried.queued:
        yield f"{count(retried.queued, 'page')} queued again"
    elif not (retried.rescraped or retried.left):
        yield "0 pages queued again: none failed"
    if retried.rescrape_crawl_id:
        crawl_id = plain(retried.rescrape_crawl_id)
        pages = count(retried.rescraped, "page is", "pages are")
        yield f"{pages} fetched again. Follow that: crawlscope profile {crawl_id} --follow"
    for name, number in retried.left.items():
        reason = NotRetried(name)
        pages_left = [page for page in retried.pages if page.reason == reason]
        codes = Counter(page.error_code for page in pages_left if page.error_code)
        among = f" ({', '.join(f'{times:,} {code}' for code, times in codes.most_common())})" if codes else ""
        yield f"{count(number, 'page')}: {BECAUSE[reason]}{among}"
        for page in pages_left[:MAX_SHOWN]:
            yield f"  {plain(page.url)}: {plain(page.error)}" if page.error else f"  {plain(page.url)}"
        if number > MAX_SHOWN and pages_left:
            yield f"  and {number - MAX_SHOWN:,} more; --json shows the first thousand"


def complaint(retried: PagesQueued) -> str | None:
    """In one line, the pages that could not be retried; None if all were retried."""
    left = {NotRetried(name): number for name, number in retried.left.items()}
    left.pop(NotRetried.PENDING, None)  # they are queued already, as requested
    if not left:
        return None
    reasons = ", ".join(f"{number:,} {BECAUSE[reason]}" for reason, number in left.items())
    words = f"{count(sum(left.values()), 'page')} could not be tried again ({reasons})"
    if any(reason.can_be_scraped for reason in left):
        words += f"; have them fetched again: crawlscope retry {plain(retried.crawl_id)} --rescrape"
    return words
