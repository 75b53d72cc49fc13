"""Cuts a cleaned page into pieces that the embedding model sees whole, along its Markdown structure."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from crawlscope.indexing.blocks import Block, closes, find_blocks

_SECTION_CHARACTERS = 10_000
"""The splitter's time grows faster than its input, so it gets no more than this at once."""

_CHARACTERS_PER_TOKEN = 20
"""A chunk with more is not text to the tokenizer, which counts any word of over 100 letters as one token."""

_TINY_TOKENS = 10

_WORDS_KEPT = 200_000

_PROBE = "# A  probe:\n\n\tfoo.bar(x_1, 'y')  \n- naïve 東京 word-word\n\n```\n  indented = [1, 2]\n```\n"

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")


_LEAD_SHARE = 4
"""What introduces a table or code goes with its first piece if it takes at most this part of a chunk."""


@dataclass(frozen=True)
class Chunk:
    """`text` is the page's from `start` to `end`; of a table or of code that is cut the lines that make sense
    of it stand before and after that in each piece."""

    index: int
    text: str
    start: int
    end: int


class _Span(NamedTuple):
    start: int
    end: int
    head: str = ""
    tail: str = ""

    def chunk(self, index: int, text: str) -> Chunk:
        own = text[self.start : self.end]
        return Chunk(index, "".join([self.head, own, self.tail and f"\n{self.tail}"]), self.start, self.end)


def split(text: str, tokenizer: Tokenizer, max_tokens: int) -> list[Chunk]:
    """The chunks in order, each of at most `max_tokens` tokens, not counting the model's special ones.

    Together they hold every character of the text but white space between them. Code and tables that fit are
    not cut, others between lines where that is possible. Takes seconds for megabytes and lets other threads
    run meanwhile.
    """
    cutter = _Cutter(text, tokenizer, max_tokens)
    spans = list(cutter.spans())
    cutter.join_tiny_end(spans)
    return [span.chunk(index, text) for index, span in enumerate(spans)]


class _Cutter:
    def __init__(self, text: str, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._text = text
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._most_characters = max_tokens * _CHARACTERS_PER_TOKEN
        self._counter = _counter(tokenizer)

    def spans(self) -> Iterator[_Span]:
        place, small = 0, list[Block]()
        for block in find_blocks(self._text):
            if self._fits(block.start, block.end):
                small.append(block)
                continue
            lead = self._lead(max(place, small[-1].end) if small else place, block.start)
            yield from self._prose(place, lead, small)
            yield from self._pieces(block, lead)
            place, small = block.end, []
        yield from self._prose(place, len(self._text), small)

    def join_tiny_end(self, spans: list[_Span]) -> None:
        """A few last words say little alone; they join the chunk before them where they fit."""
        if len(spans) < 2 or spans[-2].tail or spans[-1].head:
            return
        (start, _, head, _), (tail, end, _, _) = spans[-2:]
        if self._count(tail, end) < _TINY_TOKENS and self._fits(start, end, self._counter(head)):
            spans[-2:] = [_Span(start, end, head)]

    def _count(self, start: int, end: int) -> int:
        return self._counter(self._text[start:end])

    def _fits(self, start: int, end: int, besides: int = 0) -> bool:
        return not self._is_long(start, end) and self._count(start, end) <= self._max_tokens - besides

    def _prose(self, start: int, end: int, whole: Sequence[Block]) -> list[_Span]:
        """Cuts along headings, blocks and sentences; what shall stay `whole` does."""
        spans = list(self._cut_prose(start, end, self._max_tokens))
        for block in whole:
            self._keep_whole(spans, block)
        return spans

    def _cut_prose(self, start: int, end: int, max_tokens: int) -> Iterator[_Span]:
        splitter = _splitter(self._tokenizer, max_tokens)
        for offset, section in _sections(self._text[start:end]):
            for place, piece in splitter.chunk_indices(section):
                first = start + offset + place
                yield from _bound(self._text, first, first + len(piece), self._most_characters)

    def _keep_whole(self, spans: list[_Span], block: Block) -> None:
        """Joins the parts of a block that was cut: with what comes after it, where they fit, else alone."""
        first = bisect_right(spans, self._solid(block.start), key=_start) - 1
        after = bisect_left(spans, block.end, key=_start)
        if first < 0 or after - first < 2:
            return
        before = self._trimmed(spans[first].start, block.start)
        end = max(spans[after - 1].end, block.end)
        if self._fits(block.start, end):
            parts = [before, self._trimmed(block.start, end)]
        else:
            parts = [before, self._trimmed(block.start, block.end), self._trimmed(block.end, end)]
        spans[first:after] = [part for part in parts if part.start < part.end]

    def _solid(self, place: int) -> int:
        """The first character from there on that is no blank."""
        while place < len(self._text) and self._text[place].isspace():
            place += 1
        return place

    def _trimmed(self, start: int, end: int) -> _Span:
        """Without blank lines around it."""
        part = self._text[start:end]
        indented = part.lstrip("\n")
        return _Span(end - len(indented), start + len(part.rstrip())) if part.strip() else _Span(end, end)

    def _lead(self, start: int, end: int) -> int:
        """Where the heading and the few words begin that introduce a block."""
        lead = end
        while lead > start and not (lead < end and self._text.startswith("#", lead)):
            blank = self._text.rfind("\n\n", start, self._solid_end(start, lead))
            place = blank + 2 if blank >= 0 else start
            if self._count(max(place, end - self._most_characters), end) > self._max_tokens // _LEAD_SHARE:
                break
            lead = place
        return lead

    def _pieces(self, block: Block, start: int) -> Iterator[_Span]:
        """A block that does not fit, cut between its lines into pieces of about one size."""
        repeated = self._counter(f"{block.head}{block.tail}")
        head, tail, body = block.head, block.tail, block.body
        if repeated > self._max_tokens // 2:
            head, tail, body, repeated = "", "", block.start, 0
        room = self._max_tokens - repeated
        lines = [(place, end, self._count(place, end)) for place, end in self._lines(body, block.end)]
        used = max(0, self._count(start, body) - self._counter(head))
        whole = used + sum(size for _, _, size in lines)
        enough = math.ceil(whole / max(1, math.ceil(whole / room)))
        last = self._solid_end(start, block.end)

        def piece(place: int, end: int) -> _Span:
            own = self._trimmed(place, end)
            return own._replace(head=head if place > start else "", tail=tail if own.end < last else "")

        begin = start
        for place, end, size in lines:
            pending = bool(self._text[begin:place].strip())
            if pending and (used >= enough or used + size > room or self._is_long(begin, end)):
                yield piece(begin, place)
                begin, used = place, 0
            if size > room or self._is_long(place, end):
                parts = [(part.start, part.end) for part in self._cut_prose(place, end, room)]
                closing = parts[-1][1] >= last and closes(self._text[slice(*parts[-1])], tail.strip(" >"))
                if closing and len(parts) > 1:
                    parts[-2:] = [(parts[-2][0], parts[-1][1])]  # in the place of the tail
                yield from (piece(*part) for part in parts)
                begin = end
            else:
                used += size
        if self._text[begin : block.end].strip():
            yield piece(begin, block.end)

    def _lines(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The last line with words together with the closing fence, which says nothing alone."""
        lines = self._text[start:end].splitlines(keepends=True)
        if len(lines) > 1 and not lines[-1].strip(" \t>`~\n"):
            lines[-2:] = ["".join(lines[-2:])]
        for line in lines:
            yield start, start + len(line)
            start += len(line)

    def _is_long(self, start: int, end: int) -> bool:
        return end - start > self._most_characters

    def _solid_end(self, start: int, end: int) -> int:
        while end > start and self._text[end - 1].isspace():
            end -= 1
        return end


class WordCounter:
    """Counts a text's tokens as the sum of its words', each of which the tokenizer sees once.

    The splitter asks for the same words over and over: this is twenty times as fast as counting anew.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        known = self._known
        total = 0
        for word in text.split():
            count = known.get(word)
            total += self._learn(word) if count is None else count
        return total

    def _learn(self, word: str) -> int:
        if len(self._known) >= _WORDS_KEPT:
            self._known.clear()
        count = self._known[word] = _count(word, self._tokenizer)
        return count


def _start(span: _Span) -> int:
    return span.start


@lru_cache(maxsize=4)
def _counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    """Kept with the words it has counted."""
    counter = WordCounter(tokenizer)
    return counter if _counts_word_by_word(counter, tokenizer) else partial(_count, tokenizer=tokenizer)


@lru_cache(maxsize=16)
def _splitter(tokenizer: Tokenizer, max_tokens: int) -> MarkdownSplitter:
    return MarkdownSplitter.from_callback(_counter(tokenizer), max_tokens)


def _counts_word_by_word(counter: WordCounter, tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a text are those of its words; not so where spaces are tokens, for instance."""
    return counter(_PROBE) == _count(_PROBE, tokenizer)


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """The text cut, with the offset of each part, where that hurts least: see `_cut`."""
    start = 0
    while len(text) - start > _SECTION_CHARACTERS:
        end = _cut(text, start, start + _SECTION_CHARACTERS)
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def _cut(text: str, start: int, limit: int) -> int:
    """The last good place before `limit`: before a heading, a blank line, the end of a line or of a word.

    None of them in the first half, so that the number of parts stays in proportion to the text.
    """
    middle = start + (limit - start) // 2
    for place in _block_ends(text, start, limit):
        if place > middle:
            return place
    for mark in ("\n", " "):
        place = text.rfind(mark, middle, limit)
        if place >= 0:
            return place + 1
    return limit


def _block_ends(text: str, start: int, limit: int) -> tuple[int, int]:
    """Outside fenced code: before the last heading, and after the last block that is none; or 0."""
    place, heading, block, fence, before = start, 0, 0, "", ""
    for line in text[start:limit].splitlines(keepends=True):
        bare, mark = line.strip(), _FENCE.match(line)
        if not fence and line.startswith("#"):
            heading = place
        elif not fence and not bare and not _is_heading(before):
            block = place + len(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        before = bare or before
        place += len(line)
    return heading, block


def _is_heading(line: str) -> bool:
    """With its underline, or a rule: cutting behind a rule is as good as before it."""
    return line.startswith("#") or not line.strip("=-")


def _bound(text: str, start: int, end: int, most: int) -> Iterator[_Span]:
    """Leaves no short rest of a long word: only words of over 100 letters are one token to the tokenizer."""
    while end - start > most:
        cut = _cut(text, start, start + min(most, (end - start + 1) // 2))
        yield _Span(start, cut)
        start = cut
    yield _Span(start, end)


def _count(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
