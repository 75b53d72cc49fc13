"""The differences between two texts, by line and word: pure, and bounded for texts of any size."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

from rapidfuzz.distance import Indel

from crawlscope.insights.schemas import DiffHunk, DiffLine, DiffMark, TextDiff

MAX_LINES = 10_000
"""The maximum number of lines of each text that are compared: the time grows with the product of both."""
MAX_SHOWN = 2_000
MAX_MARKED_CHARACTERS = 2_000
"""Longer lines are shown without marks."""
LONG_LINE = 200
"""Characters after which a line is cut at the end of each sentence."""
MAX_LINE = 2_000
CONTEXT = 3
MIN_SIMILARITY = 0.4
"""Lines that are less alike have no marks: most words would have one."""

_SENTENCE_END = re.compile(r"(?<=[.!?;。！？])\s+|(?<=[。！？])")
_WORD = re.compile(r"\w+|\s+|[^\w\s]")

_Line = tuple[Literal["same", "removed", "added"], str, int, int]
"""`same`, `removed` or `added`; the text; and the number of lines before it in the old and the new text."""


def diff(before: str, now: str) -> TextDiff:
    """Blank lines do not count. Long paragraphs are compared sentence by sentence."""
    old, new = list(_lines(before)), list(_lines(now))
    is_cut = max(len(old), len(new)) > MAX_LINES
    compared = list(_compare(old[:MAX_LINES], new[:MAX_LINES]))
    hunks, shown = [], 0
    for lines in _grouped(compared):
        if shown >= MAX_SHOWN:
            is_cut = True
            break
        shown += len(lines)
        is_cut |= len(lines) > MAX_SHOWN
        hunks.append(
            DiffHunk(before_line=lines[0][2] + 1, now_line=lines[0][3] + 1, lines=_marked(lines[:MAX_SHOWN]))
        )
    kinds = [kind for kind, *_ in compared]
    return TextDiff(added=kinds.count("added"), removed=kinds.count("removed"), hunks=hunks, is_cut=is_cut)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        pieces = _SENTENCE_END.split(line) if len(line) > LONG_LINE else [line]
        for piece in pieces:
            if piece.strip():
                yield from (piece[start : start + MAX_LINE] for start in range(0, len(piece), MAX_LINE))


def _compare(old: Sequence[str], new: Sequence[str]) -> Iterator[_Line]:
    for operation in Indel.opcodes(old, new):
        begin, end, place, place_end = (
            *(operation.src_start, operation.src_end),
            *(operation.dest_start, operation.dest_end),
        )
        if operation.tag == "equal":
            yield from (
                ("same", old[begin + step], begin + step, place + step) for step in range(end - begin)
            )
        elif operation.tag == "delete":
            yield from (("removed", old[number], number, place) for number in range(begin, end))
        else:
            yield from (("added", new[number], begin, number) for number in range(place, place_end))


def _grouped(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """The lines that differ, with those around them."""
    changed = [number for number, (kind, *_) in enumerate(lines) if kind != "same"]
    begin = 0
    for place, number in enumerate(changed):
        following = changed[place + 1] if place + 1 < len(changed) else None
        if following is None or following - number > 2 * CONTEXT + 1:
            yield list(lines[max(0, changed[begin] - CONTEXT) : number + CONTEXT + 1])
            begin = place + 1


def _marked(lines: Sequence[_Line]) -> list[DiffLine]:
    """In each run of lines that differ, the removed ones come first. The words that differ are marked in
    those and in the added lines in their place.
    """
    shown: list[DiffLine] = []
    for is_same, run in groupby(lines, key=lambda line: line[0] == "same"):
        block = [DiffLine(kind=kind, text=text) for kind, text, *_ in run]
        if not is_same:
            removed = [line for line in block if line.kind == "removed"]
            added = [line for line in block if line.kind == "added"]
            for before, now in zip(removed, added, strict=False):
                before.marks, now.marks = _marks(before.text, now.text)
            block = removed + added
        shown += block
    return shown


def _marks(before: str, now: str) -> tuple[list[DiffMark], list[DiffMark]]:
    if max(len(before), len(now)) > MAX_MARKED_CHARACTERS:
        return [], []
    old, new = _WORD.findall(before), _WORD.findall(now)
    words, new_words = ([word for word in each if not word.isspace()] for each in (old, new))
    if Indel.normalized_similarity(words, new_words) < MIN_SIMILARITY:
        return [], []
    changes = [each for each in Indel.opcodes(old, new) if each.tag != "equal"]
    return (
        _spans(old, [(each.src_start, each.src_end) for each in changes]),
        _spans(new, [(each.dest_start, each.dest_end) for each in changes]),
    )


def _spans(words: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[DiffMark]:
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    return [DiffMark(begin=starts[begin], end=starts[end]) for begin, end in ranges if end > begin]
