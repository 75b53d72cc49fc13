"""Search results on a terminal: title, URL, score and the passage that answers the query."""

import re
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.words import count, duration, plain, shorten_middle
from crawlscope.search.schemas import SearchResponse

PASSAGE_CHARACTERS = 300
INDENT = 4
WORD = re.compile(r"\w+")
MARK = "bold yellow"
MARKDOWN = re.compile(r"\*\*|^\s*#{1,6}\s+|^\s*[-*_]{3,}\s*$|\\(?=[^\w\s])", re.MULTILINE)
"""Emphasis, heading marks, rules and escapes, which make a passage harder to read."""
MIN_STEM_LETTERS = 4
BLANK_DISTANCE = 20
"""Maximum distance in characters from the end of an excerpt to the blank at which it is cut instead."""


def render_results(query: str, response: SearchResponse, width: int) -> RenderableType:
    """`total` is a lower bound of the number of matching pages, so the summary does not call it "found"."""
    took = f"{response.mode} search, {duration(response.took_ms)}"
    if not response.results:
        return Text(f"Nothing found ({took})", style="dim")
    lines: list[RenderableType] = []
    for number, result in enumerate(response.results, start=1):
        heading = Table.grid(padding=(0, 1), expand=True)
        heading.add_column(width=INDENT - 1, justify="right", style="dim", no_wrap=True)
        heading.add_column(ratio=1)
        heading.add_column(justify="right", no_wrap=True)
        title = Text(plain(result.title) or plain(result.url), style="bold")
        heading.add_row(f"{number}.", title, Text(f"{result.score:.2f}", style="dim"))
        url = Text(shorten_middle(plain(result.url), max(20, width - INDENT)), style="cyan")
        heading.add_row("", url, "")
        heading.add_row("", excerpt(result.text, query, PASSAGE_CHARACTERS), "")
        lines += [heading, Text()]
    shown = count(len(response.results), "page")
    return Group(*lines, Text(f"{shown} of {response.total:,} ({took})", style="dim"))


def excerpt(text: str, query: str, width: int) -> Text:
    """At most `width` characters around the place with most words of the query, with these words marked."""
    line = plain(MARKDOWN.sub("", text))
    start, end = _window(line, _matches(line, query), width)
    shown = f"{'…' if start else ''}{line[start:end].strip()}{'…' if end < len(line) else ''}"
    marked = Text(shown)
    for first, last in _matches(shown, query):
        marked.stylize(MARK, first, last)
    return marked


def _matches(line: str, query: str) -> list[tuple[int, int]]:
    """Begin and end of each word of the query in the line."""
    stems = {_stem(word) for word in WORD.findall(query.casefold())}
    return [
        (found.start(), found.end())
        for found in WORD.finditer(line)
        if _stem(found[0].casefold()) in stems and (len(found[0]) > 2 or len(stems) == 1)
    ]


def _stem(word: str) -> str:
    """Deliberately crude: it only marks words, so that `locks` is marked for `lock`."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= MIN_STEM_LETTERS:
            return word.removesuffix(ending)
    return word


def _window(line: str, matches: Sequence[tuple[int, int]], width: int) -> tuple[int, int]:
    """Begin and end of the part with most matches, moved inwards to blanks that are near."""
    if len(line) <= width:
        return 0, len(line)
    room = width - 2  # for the ellipses

    def matches_from(begin: int) -> int:
        return sum(begin <= first and last <= begin + room * 4 // 5 for first, last in matches)

    start = max((first for first, _ in matches), key=matches_from, default=0)
    start = max(0, min(start - room // 5, len(line) - room))
    end = start + room
    if start > 0 and (blank := line.find(" ", start, start + BLANK_DISTANCE)) >= 0:
        start = blank + 1
    if end < len(line) and (blank := line.rfind(" ", end - BLANK_DISTANCE, end)) > start:
        end = blank
    return start, min(end, len(line))
