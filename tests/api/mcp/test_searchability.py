import pytest

from crawlscope.api.mcp.searchability import searchability
from crawlscope.core.vocabulary import CrawlStatus, VerdictName
from crawlscope.insights.schemas import Verdict
from tests.support.metrics_examples import BEGAN, crawl_metrics

WHOLE = {"pages_failed": 0}
OPEN = WHOLE | {"sealed": False, "awaits": "something"}
STALLED = (
    "Not safe to search yet: 3 pages not indexed yet; it has not ended and can bring more pages; "
    "workers wait for the embedder since 4 min ago: refused."
)
DRAINED = (
    "Not safe to search yet: it has not ended and can bring more pages; "
    "the last event arrived 12 min ago; 58 pages can be found already."
)
FAILED = (
    "Nothing to search: none of its pages has text; it failed (no route); 1 page failed and cannot be found."
)
EMPTY = {"pages_indexed": 1, "pages_empty": 1}


def verdict(name: VerdictName, reason: str) -> Verdict:
    return Verdict(verdict=name, since=BEGAN, stage=None, reason=reason)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (WHOLE, "Safe to search."),
        ({"pages_failed": 2}, "Safe to search: 2 pages failed and cannot be found."),
        (
            WHOLE | {"status": CrawlStatus.CANCELLED, "pages_cancelled": 5},
            "Safe to search: it was cancelled; 5 pages dropped when it was cancelled.",
        ),
        (
            WHOLE
            | {
                "status": CrawlStatus.CANCELLED,
                "cancel_requested": True,
                "error_message": "the crawl was cancelled",
            },
            "Safe to search: it was cancelled on request.",
        ),
    ],
)
def test_a_sealed_crawl_is_safe_and_says_what_is_missing(changes, sentence):
    found = searchability(crawl_metrics(**changes))
    assert (found.safe, found.sealed, found.sentence) == (True, True, sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"pages_pending": 1, "pages_indexed": 20},
            "Not safe to search yet: 1 page not indexed yet; 19 pages can be found already.",
        ),
        (
            EMPTY
            | {
                "status": CrawlStatus.IN_PROGRESS,
                "pages_pending": 3,
                "verdict": verdict(
                    VerdictName.STALLED, "workers wait for the\nembedder since 4 min ago: refused"
                ),
            },
            STALLED,
        ),
        (
            {
                "status": CrawlStatus.IN_PROGRESS,
                "verdict": verdict(VerdictName.DRAINED, "the last event arrived 12 min ago"),
            },
            DRAINED,
        ),
    ],
    ids=["pages pending", "stalled", "drained"],
)
def test_an_open_crawl_is_not_safe_and_says_why(changes, sentence):
    found = searchability(crawl_metrics(**OPEN | changes))
    assert (found.safe, found.sealed, found.sentence) == (False, False, sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (WHOLE | EMPTY, "Nothing to search: none of its pages has text."),
        (WHOLE | EMPTY | {"total_pages": 0}, "Nothing to search: it has no pages."),
        (
            EMPTY | {"status": CrawlStatus.FAILED, "error_message": "no\nroute"},
            FAILED,
        ),
    ],
)
def test_waiting_for_a_crawl_without_text_is_of_no_use(changes, sentence):
    found = searchability(crawl_metrics(**changes))
    assert (found.safe, found.sealed, found.sentence) == (False, True, sentence)
