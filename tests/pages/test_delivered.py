from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.core.vocabulary import PageState
from crawlscope.pages.delivered import Arrival
from crawlscope.sessions.changes import Counts, counts_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_content_beats_a_later_failure():
    assert Arrival(True, 0, False, NOON, "") > Arrival(False, 0, True, NOON + timedelta(hours=1), "z")


def test_a_delivered_page_beats_a_fetched_one():
    assert Arrival(True, 0, True, NOON, "") > Arrival(True, 0, False, NOON + timedelta(hours=1), "z")


def test_of_two_contents_the_later_one_wins_then_the_greater_webhook_id():
    assert Arrival(True, 0, True, NOON + timedelta(seconds=1), "a") > Arrival(True, 0, True, NOON, "b")
    assert Arrival(True, 0, True, NOON, "b") > Arrival(True, 0, True, NOON, "a")


def test_of_two_failures_the_more_precise_one_wins():
    assert Arrival(False, 3, False, NOON, "") > Arrival(False, 0, True, NOON + timedelta(hours=1), "z")
    assert Arrival(True, 0, False, NOON, "") > Arrival(False, 3, True, NOON, "")


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
