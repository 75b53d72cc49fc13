"""Cuts a cleaned page into pieces that the embedding model sees whole, along its Markdown structure."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from crawlscope.core.known import Known
from crawlscope.indexing.blocks import FENCES, Block, closes, find_blocks, lines_with

_SECTION_CHARACTERS = 10_000
"""Maximum input of the splitter, whose time grows faster than its input."""

_MAX_CHARACTERS_PER_TOKEN = 20
"""The tokenizer counts any word of over 100 letters as one token, so tokens alone do not limit a chunk."""

_TINY_TOKENS = 10

_MAX_WORDS_KEPT = 50_000
_MAX_LINES_KEPT = 20_000

_PROBE = "# A  probe:\n\n\tfoo.bar(x_1, 'y')  \n- naïve 東京 word-word\n\n```\n  indented = [1, 2]\n```\n"

_PROBE_OF_PARTS = "https://a.example/b-c?d=e&f=%20g#h don't e-mail ... -- $1,000.00 {x};\n"

_PART = r"[!-/:-@\[-`{-~]|[^!-/:-@\[-`{-~]+"
"""One punctuation mark of ASCII, or the text between two of them."""

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")

_LEAD_DIVISOR = 4
"""An introduction of a table or code joins its first piece if it takes at most a quarter of a chunk."""


@dataclass(frozen=True)
class Chunk:
    """`text` is the page's text from `start` to `end`. Each piece of a table or of code that is cut also
    has the header rows or fences of the whole before and after that."""

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

    Together they hold every character of the text except white space between them. Code and tables that fit
    are not cut; others are cut between lines if possible. Takes seconds for megabytes, without blocking other
    threads.
    """
    cutter = _Cutter(text, tokenizer, max_tokens)
    spans = list(cutter.spans())
    cutter.join_tiny_end(spans)
    return [span.chunk(index, text) for index, span in enumerate(spans)]


class _Cutter:
    def __init__(self, text: str, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._text = text
        self._max_tokens = max_tokens
        self._max_characters = max_tokens * _MAX_CHARACTERS_PER_TOKEN
        self._counter = self._part_counter = token_counter(tokenizer)
        if isinstance(self._counter, WordCounter):
            self._part_counter = PartCounter(text, self._counter)

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
        """A few last words say little alone; they join the chunk before them if they fit."""
        if len(spans) < 2 or spans[-2].tail or spans[-1].head:
            return
        (start, _, head, _), (tail, end, _, _) = spans[-2:]
        if self._count(tail, end) < _TINY_TOKENS and self._fits(start, end, self._counter(head)):
            spans[-2:] = [_Span(start, end, head)]

    def _count(self, start: int, end: int) -> int:
        return self._counter(self._text[start:end])

    def _fits(self, start: int, end: int, reserved: int = 0) -> bool:
        return not self._is_long(start, end) and self._count(start, end) <= self._max_tokens - reserved

    def _prose(self, start: int, end: int, whole: Sequence[Block]) -> list[_Span]:
        """Cuts along headings, blocks and sentences, but not within the blocks of `whole`."""
        spans = list(self._cut_prose(start, end, self._max_tokens))
        for block in whole:
            self._keep_whole(spans, block)
        return spans

    def _cut_prose(self, start: int, end: int, max_tokens: int) -> Iterator[_Span]:
        splitter = MarkdownSplitter.from_callback(self._part_counter, max_tokens)
        for offset, section in _sections(self._text[start:end]):
            for place, piece in splitter.chunk_indices(section):
                first = start + offset + place
                last = first + len(piece)
                # Parts of about one size, because a short rest of a long word would count as several tokens.
                while last - first > self._max_characters:
                    limit = first + min(self._max_characters, (last - first + 1) // 2)
                    middle = _cut(self._text, first, limit)
                    yield _Span(first, middle)
                    first = middle
                yield _Span(first, last)

    def _keep_whole(self, spans: list[_Span], block: Block) -> None:
        """Joins the parts of a block that was cut, with the text after it if that fits."""
        indented = self._text[block.start : block.end].lstrip()
        first = bisect_right(spans, block.end - len(indented), key=attrgetter("start")) - 1
        after = bisect_left(spans, block.end, key=attrgetter("start"))
        if first < 0 or after - first < 2:
            return
        before = self._trimmed(spans[first].start, block.start)
        end = max(spans[after - 1].end, block.end)
        if self._fits(block.start, end):
            parts = [before, self._trimmed(block.start, end)]
        else:
            parts = [before, self._trimmed(block.start, block.end), self._trimmed(block.end, end)]
        spans[first:after] = [part for part in parts if part.start < part.end]

    def _trimmed(self, start: int, end: int) -> _Span:
        """Without blank lines around it."""
        part = self._text[start:end]
        indented = part.lstrip("\n")
        return _Span(end - len(indented), start + len(part.rstrip())) if part.strip() else _Span(end, end)

    def _lead(self, start: int, end: int) -> int:
        """The start of the heading and the few words that introduce a block."""
        lead = end
        while lead > start and not (lead < end and self._text.startswith("#", lead)):
            blank = self._text.rfind("\n\n", start, self._solid_end(start, lead))
            place = blank + 2 if blank >= 0 else start
            if self._count(max(place, end - self._max_characters), end) > self._max_tokens // _LEAD_DIVISOR:
                break
            lead = place
        return lead

    def _pieces(self, block: Block, start: int) -> Iterator[_Span]:
        """Cuts a block that does not fit between its lines, into pieces of about one size."""
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
        """Start and end of each line; a closing fence says nothing alone and belongs to the line before."""
        lines = self._text[start:end].splitlines(keepends=True)
        if len(lines) > 1 and not lines[-1].strip(" \t>`~\n"):
            lines[-2:] = ["".join(lines[-2:])]
        for line in lines:
            yield start, start + len(line)
            start += len(line)

    def _is_long(self, start: int, end: int) -> bool:
        return end - start > self._max_characters

    def _solid_end(self, start: int, end: int) -> int:
        while end > start and self._text[end - 1].isspace():
            end -= 1
        return end


class WordCounter:
    """Counts the tokens of a text as the sum over its words, and asks the tokenizer once for each word.

    Remembers words and lines. With `in_parts`, a word is the sum over its parts between punctuation: a page
    has fewer new parts than new words.
    """

    def __init__(self, tokenizer: Tokenizer, *, in_parts: bool) -> None:
        words = Known[str, int](partial(_count, tokenizer=tokenizer), _MAX_WORDS_KEPT)
        if in_parts:
            special = [re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
            split_word = re.compile("|".join([*special, _PART])).findall
            parts = words
            words = Known(lambda word: sum(map(parts.__getitem__, split_word(word))), _MAX_WORDS_KEPT)
        self.lines = Known[str, int](lambda line: sum(map(words.__getitem__, line.split())), _MAX_LINES_KEPT)

    def __call__(self, text: str) -> int:
        return sum(map(self.lines.__getitem__, text.split("\n")))


class PartCounter:
    """Counts the tokens of parts of one text by sums over its lines: the splitter asks for the same lines
    over and over, in parts that begin further and further down."""

    def __init__(self, text: str, counter: WordCounter) -> None:
        lines = text.split("\n")
        starts = accumulate(map((1).__add__, map(len, lines)), initial=0)
        sums = accumulate(map(counter.lines.__getitem__, lines), initial=0)
        self._text, self._counter = text, counter
        self._sums = dict(zip(starts, sums, strict=True))
        """The number of tokens before each line, by the place of the line."""
        self._start, self._before = 0, self._sums.get(0)

    def __call__(self, part: str) -> int:
        if not self._text.startswith(part, self._start):
            start = self._text.find(part, self._start)
            self._start = start if start >= 0 else self._text.index(part)
            self._before = self._sums.get(self._start)
        after = self._sums.get(self._start + len(part) + 1)
        if self._before is None or after is None:
            return self._counter(part)
        return after - self._before


@lru_cache(maxsize=4)
def token_counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    """Cached with the words that it has counted.

    Counts whole texts if the tokens of a text are not those of its words, for example if spaces are tokens.
    """
    whole = partial(_count, tokenizer=tokenizer)
    for in_parts, probe in ((True, _PROBE + _PROBE_OF_PARTS), (False, _PROBE)):
        counter = WordCounter(tokenizer, in_parts=in_parts)
        if counter(probe) == whole(probe):
            return counter
    return whole


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """Offset and text of parts that the splitter takes at once, cut as `_cut` does."""
    start = 0
    while len(text) - start > _SECTION_CHARACTERS:
        end = _cut(text, start, start + _SECTION_CHARACTERS)
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def _cut(text: str, start: int, limit: int) -> int:
    """The last good place to cut before `limit`: before a heading, at a blank line, after a line or a word.

    In the second half only, so that the number of parts stays in proportion to the text.
    """
    middle = start + (limit - start) // 2
    for last in (_last_heading, _last_block_end):
        if (place := last(text[start:limit])) > middle - start:
            return start + place
    for mark in ("\n", " "):
        place = text.rfind(mark, middle, limit)
        if place >= 0:
            return place + 1
    return limit


def _last_heading(text: str) -> int:
    """The start of the last heading outside fenced code; 0 without one."""
    heading, done, code = 0, 0, ""
    for start, end in [*lines_with(text, *FENCES), (len(text), len(text))]:
        if not code:
            heading = max(heading, text.rfind("\n#", done, start) + 1)
        code, done = _code_after(text[start:end], code), end - 1
    return heading


def _last_block_end(text: str) -> int:
    """The end of the last block outside fenced code that is no heading; 0 without one."""
    place, block, code, before = 0, 0, "", ""
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        place += len(line)
        if not code and not bare and before.strip("=-") and not before.startswith("#"):
            block = place  # not right below a heading or its underline
        code = _code_after(line, code)
        before = bare or before
    return block


def _code_after(line: str, code: str) -> str:
    """The mark of the fenced code that is open below the line; `code` is that of the code around it."""
    mark = _FENCE.match(line)
    if mark and (not code or mark[1].startswith(code)):
        return "" if code else mark[1]
    return code


def _count(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
