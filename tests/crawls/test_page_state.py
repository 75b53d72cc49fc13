from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.crawls.page_state import Arrival, failure_code, failure_text
from crawlscope.sessions.counts import Counts, counts_of
from crawlscope.vocabulary import PageState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_success_beats_a_failure_that_came_later():
    assert Arrival(True, False, NOON, "") > Arrival(False, True, NOON + timedelta(hours=1), "z")


def test_what_was_delivered_beats_what_was_fetched():
    assert Arrival(True, True, NOON, "") > Arrival(True, False, NOON + timedelta(hours=1), "z")


def test_of_two_contents_the_later_one_wins_then_the_greater_webhook_id():
    assert Arrival(True, True, NOON + timedelta(seconds=1), "a") > Arrival(True, True, NOON, "b")
    assert Arrival(True, True, NOON, "b") > Arrival(True, True, NOON, "a")


@pytest.mark.parametrize("state", PageState)
def test_a_page_counts_in_one_place(state):
    counts = counts_of(state)
    assert counts.total_pages + counts.pages_pending + counts.pages_cancelled == 1
    assert counts.pages_indexed + counts.pages_failed == counts.total_pages
    assert counts.pages_unchanged + counts.pages_empty <= counts.pages_indexed


def test_counts_of_a_change_cancel_out():
    there = counts_of(PageState.QUEUED) - counts_of(PageState.FAILED)
    back = counts_of(PageState.FAILED) - counts_of(PageState.QUEUED)
    assert there + back == Counts()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("The scrape operation timed out before completing.", "scrape_timeout", None),
        ("EXTERNAL_LINK", "external_link", None),
        ("All scraping engines failed to retrieve content", "scrape_failed", None),
        ("… because the parent crawl or batch scrape was cancelled. …", "crawl_cancelled", None),
        ({"code": "SCRAPE_ALL_ENGINES_FAILED"}, "scrape_all_engines_failed", "SCRAPE_ALL_ENGINES_FAILED"),
        ({}, "scrape_failed", ""),
        (None, "scrape_failed", ""),
    ],
)
def test_failures_get_a_stable_code_and_their_words(error, code, text):
    assert failure_code(error) == code
    assert (failure_text(error) or "") == (error if text is None else text)
