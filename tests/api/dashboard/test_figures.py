"""The geometry of bars and axes."""

from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.api.dashboard.figures import (
    MIN_VISIBLE,
    WIDTH,
    Axis,
    page_counts,
    page_spans,
    parts_of,
    smoothed,
    sparkline,
    stage_totals,
    stages_of,
)
from crawlscope.api.dashboard.rendering import with_code
from tests.support.metrics_examples import crawl_metrics, operation

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_parts_fill_the_bar_and_the_smallest_is_visible():
    parts = parts_of([("indexed", 100_000), ("failed", 1), ("empty", 0)])
    assert [part.name for part in parts] == ["indexed", "failed"]
    assert sum(part.width for part in parts) == pytest.approx(WIDTH, abs=0.1)
    assert parts[1].x == pytest.approx(parts[0].width, abs=0.1)
    assert parts[1].width > MIN_VISIBLE * 0.9
    assert parts[1].share == pytest.approx(1 / 100_001)
    assert parts_of([("indexed", 0)]) == []


def test_each_page_counts_once():
    crawl = crawl_metrics(pages_pending=4, pages_cancelled=2, pages_expected=70)
    counts = dict(page_counts(crawl))
    assert counts["indexed"] + counts["unchanged"] + counts["empty"] == crawl.pages_indexed
    assert sum(counts.values()) == 70
    assert counts["expected"] == 70 - 60 - 4 - 2


def test_stages_and_the_rest_are_the_whole_time():
    measured = {
        "worker": operation(10, 100, failed=2, failed_ms=300),
        "chunking": operation(10, 20),
        "embedding": operation(10, 60, failed=2, failed_ms=100),
    }
    assert dict(stage_totals(measured)) == {"chunking": 200, "embedding": 580, "unaccounted": 320}
    assert stages_of({"qdrant": 20, "chunking": 10}, 35) == [
        ("chunking", 10.0),
        ("qdrant", 20.0),
        ("unaccounted", 5.0),
    ]


def test_the_rate_of_a_short_bucket_is_that_of_the_second_around_it():
    rates = smoothed([0, 0, 40, 0, 0, 0], bucket_seconds=0.25)
    assert rates == [10, 10, 10, 10, 0, 0]
    assert smoothed([1.5, 3], bucket_seconds=2) == [1.5, 3]
    assert smoothed([400], bucket_seconds=0.01) == [4]


def test_a_sparkline_has_a_step_for_each_count():
    path = sparkline([0, 2, 1], width=30, height=10)
    assert path.startswith("M0 10L0.0 10.0L10.0 10.0L10.0 1.0")
    assert sparkline([0, 0]) == ""


def test_the_bars_of_a_page_follow_one_another():
    axis = Axis.between(NOON, NOON + timedelta(seconds=10))
    assert axis is not None
    row = {
        "state": "indexed",
        "queued_at": NOON + timedelta(seconds=1),
        "started_at": NOON + timedelta(seconds=3),
        "settled_at": NOON + timedelta(seconds=5),
        "total_ms": 2_000.0,
        "stages": {"embedding": 1_500.0, "chunking": 500.0},
    }
    wait, chunking, embedding = page_spans(row, axis, NOON + timedelta(seconds=10))
    assert (wait.name, wait.x, wait.width) == ("queue_wait", 100, 200)
    assert (chunking.name, chunking.x, chunking.width) == ("chunking", 300, 50)
    assert (embedding.name, embedding.x, embedding.width) == ("embedding", 350, 150)


def test_a_page_that_waits_is_drawn_until_now():
    axis = Axis.between(NOON, NOON + timedelta(seconds=10))
    assert axis is not None
    row = {"state": "queued", "queued_at": NOON, "started_at": None, "settled_at": None, "total_ms": None}
    [wait] = page_spans({**row, "stages": {}}, axis, NOON + timedelta(seconds=5))
    assert (wait.x, wait.width) == (0, 500)
    assert Axis.between(None, None) is None


def test_code_in_a_sentence_is_shown_as_code():
    shown = with_code("Run `crawlscope <b>`, x < y.")
    assert str(shown) == "Run <code>crawlscope &lt;b&gt;</code>, x &lt; y."
