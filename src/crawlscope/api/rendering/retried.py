"""What trying failed pages again has come to, in words."""

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from crawlscope.api.rendering.words import count, plain
from crawlscope.core.vocabulary import NotRetried
from crawlscope.crawls.schemas import PageNotRetried, PagesQueued

MOST_SHOWN = 20
BECAUSE = {
    NotRetried.NOT_RECEIVED: "failed before any content was received",
    NotRetried.DROPPED: "dropped when the crawl was cancelled",
    NotRetried.PENDING: "queued or being indexed already",
    NotRetried.NOT_FAILED: "did not fail",
    NotRetried.UNKNOWN: "no page of this crawl has this URL",
    NotRetried.NO_URL: "failed without naming a URL",
    NotRetried.NOT_TAKEN: "not taken by the crawler",
}


def render_retried(retried: PagesQueued) -> Text:
    """What was done, then what was not, by reason and page by page."""
    return Text("\n".join([*_done(retried), *_left(retried)]))


def complaint(retried: PagesQueued) -> str | None:
    """Why not all that was asked for is done, in one line; None where it is."""
    left = {NotRetried(name): number for name, number in retried.left.items()}
    left.pop(NotRetried.PENDING, None)  # that is what was asked for
    if not left:
        return None
    reasons = ", ".join(f"{number:,} {BECAUSE[reason]}" for reason, number in left.items())
    words = f"{count(sum(left.values()), 'page')} could not be tried again ({reasons})"
    if any(reason.can_be_scraped for reason in left):
        words += f"; have them fetched again: crawlscope retry {plain(retried.crawl_id)} --rescrape"
    return words


def _done(retried: PagesQueued) -> Iterator[str]:
    if retried.queued or not (retried.rescraped or retried.left):
        queued = f"{count(retried.queued, 'page')} queued again"
        yield queued if retried.queued else f"{queued}: none failed"
    if retried.rescrape_crawl_id:
        crawl_id = plain(retried.rescrape_crawl_id)
        pages = count(retried.rescraped, "page is", "pages are")
        yield f"{pages} fetched again. Follow that: crawlscope profile {crawl_id} --follow"


def _left(retried: PagesQueued) -> Iterator[str]:
    for name, number in retried.left.items():
        reason = NotRetried(name)
        pages = [page for page in retried.pages if page.reason == reason]
        codes = Counter(page.error_code for page in pages if page.error_code)
        among = f" ({', '.join(f'{times:,} {code}' for code, times in codes.most_common())})" if codes else ""
        yield f"{count(number, 'page')}: {BECAUSE[reason]}{among}"
        yield from (f"  {_page(page)}" for page in pages[:MOST_SHOWN])
        if number > MOST_SHOWN and pages:
            yield f"  and {number - MOST_SHOWN:,} more; --json shows the first thousand"


def _page(page: PageNotRetried) -> str:
    return f"{plain(page.url)}: {plain(page.error)}" if page.error else plain(page.url)
