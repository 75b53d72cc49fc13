"""Cuts the part out of a passage that answers a query, and marks the query's words in it."""

import re
from collections.abc import Sequence

from rich.text import Text

from crawlscope.api.rendering.words import plain

WORD = re.compile(r"\w+")
MARK = "bold yellow"
MARKDOWN = re.compile(r"\*\*|^\s*#{1,6}\s+|^\s*[-*_]{3,}\s*$|\\(?=[^\w\s])", re.MULTILINE)
"""Emphasis, heading marks, rules and escapes: of use to a renderer, in the way of a reader."""
SHORTEST_STEM = 4
"""Letters; words are compared by their beginnings, so that `locks` is marked for `lock`."""


def excerpt(text: str, query: str, width: int) -> Text:
    """At most `width` characters around where most of the query's words stand."""
    line = plain(MARKDOWN.sub("", text))
    start, end = _window(line, _matches(line, query), width)
    shown = f"{'…' if start else ''}{line[start:end].strip()}{'…' if end < len(line) else ''}"
    marked = Text(shown)
    for begin, stop in _matches(shown, query):
        marked.stylize(MARK, begin, stop)
    return marked


def _matches(line: str, query: str) -> list[tuple[int, int]]:
    stems = {_stem(word) for word in WORD.findall(query.casefold())}
    return [
        (found.start(), found.end())
        for found in WORD.finditer(line)
        if _stem(found[0].casefold()) in stems and (len(found[0]) > 2 or len(stems) == 1)
    ]


def _stem(word: str) -> str:
    """Crude on purpose: only marks, finds nothing."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            return word.removesuffix(ending)
    return word


def _window(line: str, matches: Sequence[tuple[int, int]], width: int) -> tuple[int, int]:
    if len(line) <= width:
        return 0, len(line)
    room = width - 2  # for the ellipses
    start = max((begin for begin, _ in matches), key=lambda begin: _held(matches, begin, room), default=0)
    start = max(0, min(start - room // 5, len(line) - room))
    return _at_words(line, start, start + room)


def _held(matches: Sequence[tuple[int, int]], begin: int, room: int) -> int:
    return sum(begin <= first and last <= begin + room * 4 // 5 for first, last in matches)


def _at_words(line: str, start: int, end: int) -> tuple[int, int]:
    """Moves both ends inwards to blanks, where there is one near."""
    if start > 0 and (blank := line.find(" ", start, start + 20)) >= 0:
        start = blank + 1
    if end < len(line) and (blank := line.rfind(" ", end - 20, end)) > start:
        end = blank
    return start, min(end, len(line))
