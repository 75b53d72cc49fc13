"""Fenced code and tables in Markdown, which say little when they are cut in the middle."""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

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
    lines = text.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    blocks = list[Block]()
    after = 0
    for number, line in enumerate(lines):
        if number < after or not ("|" in line or "```" in line or "~~~" in line):
            continue
        if fence := opening_fence(line):
            after = number + 1
            while after < len(lines) and not closes(lines[after], fence["mark"]):
                after += 1
            after = min(after + 1, len(lines))
            # A list's marker stands before the first line only.
            before = _MARKER.sub(" ", re.sub(r"\d", " ", fence["before"]))
            head, tail = before + line[fence.end("before") :], f"{before}{fence['mark']}"
            blocks.append(Block(starts[number], starts[number + 1], starts[after], head, tail))
        elif _begins_table(lines, number):
            after = number + 2
            while after < len(lines) and "|" in lines[after]:
                after += 1
            head = line + lines[number + 1] if _WORD.search(line) else ""
            blocks.append(Block(starts[number], starts[number + 2], starts[after], head))
    return tuple(blocks)


def opening_fence(line: str) -> re.Match[str] | None:
    """The beginning of fenced code, with its `mark` and what is `before` it: a list's marker, a quotation."""
    return _FENCE.match(line) if "```" in line or "~~~" in line else None


def closes(line: str, mark: str) -> bool:
    """Whether the line ends the code that `mark` began."""
    bare = line.strip(" \t>\n")
    return bool(mark) and len(bare) >= len(mark) and not bare.strip(mark[0])


def _begins_table(lines: list[str], number: int) -> bool:
    if "|" not in lines[number] or number + 1 == len(lines):
        return False
    below = lines[number + 1]
    return "|" in below and _DELIMITER_ROW.match(below) is not None
