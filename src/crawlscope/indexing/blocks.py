"""Fenced code and tables in Markdown, which say little when they are cut in the middle."""

import re
from dataclasses import dataclass
from functools import lru_cache

FENCES = ("```", "~~~")
"""Each line that opens or closes fenced code has one of these."""
_FENCE = re.compile(r"(?P<before>[ \t>]*(?:[*+-][ \t]+|\d{1,9}[.)][ \t]+)?)(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})")
_DELIMITER_ROW = re.compile(r"[ \t>]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\n?\Z")
_MARKER = re.compile(r"[^\s>]")
_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Block:
    """From `start` to `end` of a text; its lines can be separated from `body` on."""

    start: int
    body: int
    end: int
    head: str
    """Explains lines that are separated from the first ones: the header rows, the opening fence."""
    tail: str = ""
    """Has to follow lines that are separated from the last ones: the closing fence."""


@lru_cache(maxsize=2)
def find_blocks(text: str) -> tuple[Block, ...]:
    """In order, none within another. Takes time in proportion to the text.

    Cached, because chunks and passages of a page need the same, and two pages are read at a time.
    """
    lines, blocks, after = lines_with(text, "|", *FENCES), list[Block](), 0
    for number, (start, end) in enumerate(lines):
        if start < after:
            continue
        line = text[start:end]
        if fence := opening_fence(line):
            below = (lines[each] for each in range(number + 1, len(lines)))
            ends = (end for start, end in below if closes(text[start:end], fence["mark"]))
            after = next(ends, len(text))
            # A list's marker stands before the first line only.
            before = _MARKER.sub(" ", re.sub(r"\d", " ", fence["before"]))
            head, tail = before + line[fence.end("before") :], f"{before}{fence['mark']}"
            blocks.append(Block(start, end, after, head, tail))
        elif "|" in line and _is_delimiter_row(delimiter := text[end : line_end(text, end)]):
            body = after = end + len(delimiter)
            while "|" in text[after : line_end(text, after)]:
                after = line_end(text, after)
            head = line + delimiter if _WORD.search(line) else ""
            blocks.append(Block(start, body, after, head))
    return tuple(blocks)


def lines_with(text: str, *marks: str) -> list[tuple[int, int]]:
    """Start and end of each line with one of these marks, in order; without a look at the others."""
    found = set[tuple[int, int]]()
    for mark in marks:
        end = 0
        while (place := text.find(mark, end)) >= 0:
            start, end = text.rfind("\n", 0, place) + 1, line_end(text, place)
            found.add((start, end))
    return sorted(found)


def line_end(text: str, place: int) -> int:
    """The place after the line break."""
    return text.find("\n", place) + 1 or len(text)


def opening_fence(line: str) -> re.Match[str] | None:
    """The beginning of fenced code, with its `mark` and what is `before` it: a list's marker, a quotation."""
    return _FENCE.match(line)


def closes(line: str, mark: str) -> bool:
    """Whether the line ends the code that `mark` began."""
    bare = line.strip(" \t>\n")
    return bool(mark) and len(bare) >= len(mark) and not bare.strip(mark[0])


def _is_delimiter_row(line: str) -> bool:
    return "|" in line and _DELIMITER_ROW.match(line) is not None
