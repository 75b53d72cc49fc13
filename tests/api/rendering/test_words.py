from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.api.rendering.words import ago, count, duration, percent, plain, ratio, shorten_middle

NOW = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, "–"),
        (0, "0.0 ms"),
        (9.94, "9.9 ms"),
        (9.96, "10 ms"),
        (999.4, "999 ms"),
        (999.6, "1.0 s"),
        (59_949, "59.9 s"),
        (59_960, "1m 00s"),
        (125_000, "2m 05s"),
        (3_599_900, "1h 00m"),
        (90_000_000, "25h 00m"),
    ],
)
def test_durations(milliseconds, words):
    assert duration(milliseconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0s ago"), (59, "59s ago"), (60, "1m ago"), (7_300, "2h ago"), (2e5, "2d ago")],
)
def test_ago(seconds, words):
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_counts_and_shares():
    assert count(1, "page") == "1 page"
    assert count(12_345, "page") == "12,345 pages"
    assert percent(1, 3) == "33.3 %"
    assert percent(1, 0) == "–"


def test_foreign_text_becomes_one_harmless_line():
    assert plain(" a\n\tb\x1b[2J\x00\u202ec\u200b é 日本 ") == "a b[2Jc é 日本"


def test_shortening_keeps_both_ends():
    assert shorten_middle("abcdefghij", 10) == "abcdefghij"
    assert shorten_middle("abcdefghijk", 6) == "abc…jk"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.0001, "<0.001"), (0.0032, "0.003"), (0.25, "0.25"), (11.73, "11.7"), (1_234, "1,234")],
)
def test_a_ratio_has_the_digits_that_it_needs(value: float, text: str):
    assert ratio(value) == text
