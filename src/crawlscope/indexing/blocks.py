"""Fenced code and tables in Markdown: what says little when it is cut in the middle."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"(?P<before>[ \t>]*(?:[*+-][ \t]+|\d{1,9}[.)][ \t]+)?)(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})")
"""The opening of fenced code at the beginning of a line, also within a list or quotation."""
_DELIMITER_ROW = re.compile(r"[ \t>]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\n?\Z")
_MARKER = re.compile(r"[^\s>]")
_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Block:
    """From `start` to `end` of a text; its lines can be parted from `body` on."""

    start: int
    body: int
    end: int
    head: str
    """What makes sense of lines that are parted from the first ones: the header rows, the opening fence."""
    tail: str = ""
    """What has to stand after lines that are parted from the last ones: the closing fence."""


def find_blocks(text: str) -> list[Block]:
    """In order, none within another. Takes time in proportion to the text."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return list(_blocks(lines, starts))


def _blocks(lines: list[str], starts: list[int]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        line = lines[number]
        if fence := FENCE.match(line):
            after = _after_code(lines, number + 1, fence["mark"])
            # A list's marker stands before the first line alone.
            before = _MARKER.sub(" ", re.sub(r"\d", " ", fence["before"]))
            head = before + line[fence.end("before") :]
            yield Block(starts[number], starts[number + 1], starts[after], head, f"{before}{fence['mark']}")
            number = after
        elif _begins_table(lines, number):
            after = number + 2
            while after < len(lines) and "|" in lines[after]:
                after += 1
            head = line + lines[number + 1] if _WORD.search(line) else ""
            yield Block(starts[number], starts[min(number + 2, after)], starts[after], head)
            number = after
        else:
            number += 1


def _after_code(lines: list[str], number: int, mark: str) -> int:
    while number < len(lines):
        if closes(lines[number], mark):
            return number + 1
        number += 1
    return number


def closes(line: str, mark: str) -> bool:
    """Whether the line ends the code that `mark` began."""
    bare = line.strip(" \t>\n")
    return bool(mark) and len(bare) >= len(mark) and not bare.strip(mark[0])


def _begins_table(lines: list[str], number: int) -> bool:
    if "|" not in lines[number] or number + 1 == len(lines):
        return False
    below = lines[number + 1]
    return "|" in below and _DELIMITER_ROW.match(below) is not None
