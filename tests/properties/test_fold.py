"""The state of a crawl does not depend on the order of its facts, nor on their repetition."""

import json
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.sessions.fold import (
    PRECEDENCE,
    CrawlSeen,
    Ended,
    Fact,
    Lifecycle,
    PageSeen,
    StatusAnswer,
    credible_moment,
    fold,
    summarize,
)
from crawlscope.sessions.repository import fact_from_json, fact_to_json

START = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(0, 1_000).map(lambda seconds: START + timedelta(seconds=seconds))
urls = st.sampled_from([f"https://example.com/{name}" for name in "abc"])
initiations = st.sampled_from(
    ["2026-01-01T00:00:00Z", "2025-12-31T23:00:00+00:00", "0001-01-01T00:00:00Z", "yesterday", ""]
)
metadata = st.fixed_dictionaries(
    {}, optional={"url": urls, "initiated_at": initiations, "run": st.text(max_size=3)}
)
errors = st.sampled_from([None, "a", "b"])
facts = st.lists(
    st.one_of(
        st.builds(CrawlSeen, moments, metadata, st.sampled_from(["started", "page", "request", ""])),
        st.builds(PageSeen, moments, urls, st.booleans()),
        st.builds(Ended, moments, st.sampled_from(PRECEDENCE), errors, st.booleans()),
        st.builds(
            StatusAnswer,
            moments,
            st.none() | st.sampled_from(PRECEDENCE),
            st.none() | moments,
            st.none() | moments,
            errors,
            st.none() | moments,
            st.none() | moments,
        ),
    ),
    min_size=1,
    max_size=5,
)

orders = st.integers(0, 2**32).map(Random)
"""Cheaper than `randoms`, of which each number is drawn and shrunk."""


def folded(facts: list[Fact]) -> Lifecycle:
    lifecycle = fold(None, facts)
    assert lifecycle is not None
    return lifecycle


@settings(max_examples=600, deadline=None, phases=[Phase.generate, Phase.shrink])
@given(facts, orders, st.lists(st.integers(0, 4), max_size=3))
def test_order_and_repetition_change_nothing(facts, random, repeated):
    expected = summarize(folded(facts))
    again = facts + [facts[number % len(facts)] for number in repeated]
    random.shuffle(again)
    assert summarize(folded(again)) == expected


@settings(max_examples=150, deadline=None)
@given(facts)
def test_the_stored_lifecycle_is_complete(facts):
    """The lifecycle survives its way through the column it is kept in."""
    lifecycle = folded(facts)
    stored = json.loads(json.dumps(lifecycle.to_json()))
    assert Lifecycle.from_json(stored, lifecycle.last_fact_at) == lifecycle


@settings(max_examples=150, deadline=None)
@given(facts)
def test_facts_are_the_same_after_storage(facts):
    stored = [(fact.at, json.loads(json.dumps(fact_to_json(fact)))) for fact in facts]
    read = [fact_from_json(at, fact) for at, fact in stored]
    assert folded([fact for fact in read if fact is not None]) == folded(facts)


@settings(max_examples=150, deadline=None)
@given(facts, st.data())
def test_facts_may_be_merged_in_any_parts(facts, data):
    """Facts come one at a time, and each time the rest of the lifecycle comes from where it is kept."""
    kept: Lifecycle | None = None
    for fact in data.draw(st.permutations(facts)):
        before = Lifecycle.from_json(kept.to_json(), kept.last_fact_at) if kept else None
        kept = fold(before, [fact])
    assert kept == folded(facts)


@settings(max_examples=150, deadline=None)
@given(facts)
def test_summaries_are_consistent(facts):
    summary = summarize(folded(facts))
    ends = {fact.status for fact in facts if isinstance(fact, Ended)}
    ends |= {fact.ended for fact in facts if isinstance(fact, StatusAnswer) and fact.ended}
    created = [fact.created_at for fact in facts if isinstance(fact, StatusAnswer) and fact.created_at]
    assert summary.started_at == min(created or [fact.at for fact in facts])
    assert (summary.status is CrawlStatus.IN_PROGRESS) == (not ends)
    assert summary.success is (None if not ends else summary.status is CrawlStatus.COMPLETED)
    assert (summary.duration_ms is None) == (summary.completed_at is None) == (not ends)
    assert ("end" in summary.lacks) == (not ends)
    assert all(ms is None or ms >= 0 for ms in (summary.duration_ms, summary.e2e_duration_ms))


def test_the_crawlers_own_times_win_over_those_of_deliveries():
    summary = summarize(
        folded(
            [
                CrawlSeen(START + timedelta(seconds=5), what="started"),
                Ended(START + timedelta(seconds=90), CrawlStatus.COMPLETED),
                StatusAnswer(
                    START + timedelta(seconds=600),
                    CrawlStatus.COMPLETED,
                    created_at=START + timedelta(seconds=3),
                    completed_at=START + timedelta(seconds=60),
                ),
            ]
        )
    )
    assert (summary.started_at, summary.duration_ms) == (START + timedelta(seconds=3), 57_000)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


BATCH = [
    CrawlSeen(START, what="started"),
    PageSeen(at(1), "https://a.example/1"),
    PageSeen(at(14.9), "https://a.example/2"),
]
LATE_END = Ended(at(33.9), CrawlStatus.COMPLETED, late=True)
END = Ended(at(20), CrawlStatus.COMPLETED)


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [
        ([*BATCH, LATE_END], 14.9),
        ([CrawlSeen(START, what="started"), LATE_END], 33.9),
        ([*BATCH, LATE_END, PageSeen(at(40), "https://a.example/slow")], 33.9),
        ([*BATCH, END], 20),
        ([*BATCH, END, PageSeen(at(40), "https://a.example/slow")], 20),
        (
            [*BATCH, LATE_END, StatusAnswer(at(35), CrawlStatus.COMPLETED, at(0), at(0.5), None, at(15.6))],
            15.6,
        ),
        ([*BATCH, LATE_END, StatusAnswer(at(35), CrawlStatus.COMPLETED, at(0), at(0), None, at(15.6))], 15.6),
        ([*BATCH, LATE_END, StatusAnswer(at(35), CrawlStatus.COMPLETED, at(0), at(14.5))], 14.5),
        (
            [
                *BATCH,
                Ended(at(20), CrawlStatus.COMPLETED),
                StatusAnswer(at(21), CrawlStatus.COMPLETED, failed_at=at(19)),
            ],
            20,
        ),
        ([*BATCH, Ended(at(90), CrawlStatus.COMPLETED), StatusAnswer(at(21), CrawlStatus.COMPLETED)], 21),
        ([*BATCH, StatusAnswer(at(60), CrawlStatus.COMPLETED, running_at=at(55))], 55),
        ([*BATCH, StatusAnswer(at(60), CrawlStatus.COMPLETED)], 14.9),
        ([CrawlSeen(START, what="request"), StatusAnswer(at(60), CrawlStatus.COMPLETED)], 60),
        ([*BATCH, PageSeen(at(50), "https://a.example/3", fetched=True), LATE_END], 14.9),
        ([*BATCH, LATE_END, StatusAnswer(at(35), CrawlStatus.CANCELLED, at(0), at(12.5))], 12.5),
    ],
    ids=[
        "a late event counts less than the last page",
        "a late event is all that is known",
        "a page that came after it may have been long on its way",
        "an event that is sent at once counts",
        "a page that was long on its way changes nothing",
        "completedAt passes over pages that failed",
        "all pages failed",
        "the crawler's own time wins",
        "failures before the end change nothing",
        "an end that was found out before it was announced",
        "an end found out: after it was known to go on",
        "an end found out: after the last page",
        "an end found out and nothing else",
        "pages that were asked for say nothing of when",
        "cancelled",
    ],
)
def test_the_latest_known_end_counts(facts, seconds):
    for order in (facts, facts[::-1]):
        summary = summarize(folded(order))
        assert summary.completed_at == at(seconds)
        assert summary.duration_ms == seconds * 1000


def test_a_cancel_known_only_to_the_status_api_ends_the_crawl_at_the_announced_time():
    """`completed` is the only end that is announced of a cancelled crawl; older servers report no times."""
    summary = summarize(
        folded(
            [
                CrawlSeen(START, what="started"),
                Ended(START + timedelta(seconds=90), CrawlStatus.COMPLETED),
                StatusAnswer(START + timedelta(seconds=600), CrawlStatus.CANCELLED),
            ]
        )
    )
    assert (summary.status, summary.success) == (CrawlStatus.CANCELLED, False)
    assert summary.completed_at == START + timedelta(seconds=90)


def test_times_that_are_infinite_to_the_database_are_ignored():
    for text in ("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"):
        for zone in ("", "Z", "+14:00", "-14:00"):
            assert credible_moment(text + zone) is None
    assert credible_moment("2026-01-01T01:00:00+01:00") == credible_moment("2026-01-01T00:00:00") == START
