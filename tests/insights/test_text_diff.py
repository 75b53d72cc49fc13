from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from crawlscope.insights import text_diff
from crawlscope.insights.schemas import TextDiff
from crawlscope.insights.text_diff import diff

LINES = st.lists(st.sampled_from(["a", "b", "c d", "c e", "A longer line."]), max_size=30)


def side(found: TextDiff, kind: str) -> list[str]:
    return [line.text for hunk in found.hunks for line in hunk.lines if line.kind in ("same", kind)]


def is_part(part: Iterable[str], whole: Iterable[str]) -> bool:
    rest = iter(whole)
    return all(line in rest for line in part)


@given(LINES, LINES)
def test_a_diff_leads_from_one_text_to_the_other(old: list[str], new: list[str]):
    found = diff("\n".join(old), "\n\n".join(new))

    assert is_part(side(found, "removed"), old)
    assert is_part(side(found, "added"), new)
    assert found.added - found.removed == len(new) - len(old)
    assert bool(found.hunks) == (old != new)
    for hunk in found.hunks:
        before = [line.text for line in hunk.lines if line.kind != "added"]
        now = [line.text for line in hunk.lines if line.kind != "removed"]
        assert old[hunk.before_line - 1 :][: len(before)] == before
        assert new[hunk.now_line - 1 :][: len(now)] == now
        for line in hunk.lines:
            assert all(0 <= mark.begin < mark.end <= len(line.text) for mark in line.marks)


def test_only_lines_near_a_change_are_shown():
    old = [f"line {number}" for number in range(100)]
    new = [*old[:10], "another", *old[11:90], *old[91:]]

    first, second = diff("\n".join(old), "\n".join(new)).hunks

    assert (first.before_line, len(first.lines)) == (8, 8)
    assert (second.before_line, len(second.lines)) == (88, 7)


def test_a_long_paragraph_is_compared_by_its_sentences():
    sentences = [f"This is sentence number {number} of a long paragraph." for number in range(50)]
    changed = [*sentences[:20], "Something else.", *sentences[21:]]

    found = diff(" ".join(sentences), " ".join(changed))

    assert (found.added, found.removed) == (1, 1)


def test_texts_of_any_size_and_kind_are_bounded():
    """Texts with few different lines are the worst for many ways to compare them."""
    old = "\n".join(f"{number % 7}" for number in range(200_000))
    new = "\n".join(f"{number % 5}" for number in range(200_000))
    one_line = "x" * 1_000_000

    for found in (diff(old, new), diff(one_line, "y" * 1_000_000), diff("", old)):
        assert found.is_cut or found.removed + found.added <= text_diff.MAX_LINES
        assert sum(len(hunk.lines) for hunk in found.hunks) <= 2 * text_diff.MAX_SHOWN
    assert diff(old, new).is_cut


def test_text_without_a_difference_has_none():
    assert diff("a\n\nb", "a\nb") == TextDiff(added=0, removed=0, hunks=[], is_cut=False)


def test_words_are_marked_only_in_lines_that_share_some():
    [other] = diff("alpha beta gamma delta", "one two three four").hunks
    assert not any(line.marks for line in other.lines), "spaces are in every line"
    [similar] = diff("alpha beta gamma delta", "alpha beta gamma four").hunks
    assert [[line.text[each.begin : each.end] for each in line.marks] for line in similar.lines] == [
        ["delta"],
        ["four"],
    ]
