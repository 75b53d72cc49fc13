from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from crawlscope.cli.output.results import excerpt

FILLER = "Nothing of interest stands in this sentence. " * 20


def marked(text: Text) -> list[str]:
    return [text.plain[span.start : span.end] for span in text.spans]


def test_a_short_passage_is_shown_whole_with_the_words_marked():
    shown = excerpt("# Locks\n\nA **lock** is released; locking again waits.", "lock", 200)
    assert shown.plain == "Locks A lock is released; locking again waits."
    assert marked(shown) == ["Locks", "lock", "locking"]


def test_a_long_passage_is_cut_to_where_the_words_stand():
    shown = excerpt(f"{FILLER}Threads wait for a lock that another holds. {FILLER}", "waiting for locks", 120)
    assert "wait for a lock" in shown.plain
    assert shown.plain.startswith("…")
    assert shown.plain.endswith("…")
    assert len(shown.plain) <= 120


def test_without_a_match_the_beginning_is_shown():
    shown = excerpt(FILLER, "unrelated", 60)
    assert shown.plain.startswith("Nothing of interest")
    assert not shown.spans


@given(st.text(max_size=400), st.text(max_size=40), st.integers(min_value=40, max_value=300))
def test_any_passage_fits_on_one_line(text, query, width):
    shown = excerpt(text, query, width).plain
    assert len(shown) <= width
    assert "\n" not in shown
