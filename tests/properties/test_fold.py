"""What a crawl is does not depend on the order of its facts, nor on how often each was told."""

from datetime import UTC, datetime, timedelta

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crawlscope.crawls.fold import (
    PRECEDENCE,
    Ended,
    Fact,
    Heard,
    Lifecycle,
    PageSeen,
    fold,
    summarize,
)
from crawlscope.vocabulary import CrawlStatus

START = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(0, 1_000).map(lambda seconds: START + timedelta(seconds=seconds))
urls = st.sampled_from([f"https://example.com/{name}" for name in "abc"])
initiations = st.sampled_from(["2026-01-01T00:00:00Z", "2025-12-31T23:00:00+00:00", "yesterday", ""])
metadata = st.fixed_dictionaries(
    {}, optional={"url": urls, "initiated_at": initiations, "run": st.text(max_size=3)}
)
facts = st.lists(
    st.one_of(
        st.builds(Heard, moments, metadata),
        st.builds(PageSeen, moments, urls),
        st.builds(Ended, moments, st.sampled_from(PRECEDENCE), st.sampled_from([None, "a", "b"])),
    ),
    min_size=1,
    max_size=5,
)


def folded(facts: list[Fact]) -> Lifecycle:
    return fold(Lifecycle(started_at=facts[0].at, last_fact_at=facts[0].at), facts)


@settings(max_examples=10_000, deadline=None, phases=[Phase.generate, Phase.shrink])
@given(facts, st.randoms(use_true_random=False), st.lists(st.integers(0, 4), max_size=3))
def test_order_and_repetition_change_nothing(facts, random, repeated):
    expected = summarize(folded(facts))
    again = facts + [facts[number % len(facts)] for number in repeated]
    random.shuffle(again)
    assert summarize(folded(again)) == expected


@settings(max_examples=1_000, deadline=None)
@given(facts)
def test_what_is_stored_is_all_that_is_needed(facts):
    """The lifecycle survives its way through the column it is kept in."""
    lifecycle = folded(facts)
    stored = Lifecycle.from_json(lifecycle.started_at, lifecycle.last_fact_at, lifecycle.to_json())
    assert stored == lifecycle


@settings(max_examples=1_000, deadline=None)
@given(facts)
def test_summaries_hold_together(facts):
    summary = summarize(folded(facts))
    told = {fact.status for fact in facts if isinstance(fact, Ended)}
    assert summary.started_at == min(fact.at for fact in facts)
    assert (summary.status is CrawlStatus.IN_PROGRESS) == (not told)
    assert summary.success is (None if not told else summary.status is CrawlStatus.COMPLETED)
    assert (summary.duration_ms is None) == (not told)
    assert all(ms is None or ms >= 0 for ms in (summary.duration_ms, summary.e2e_duration_ms))
