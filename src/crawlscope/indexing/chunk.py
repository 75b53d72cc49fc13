"""Cuts a cleaned page into pieces that the embedding model sees whole, along its Markdown structure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

_SECTION_CHARACTERS = 10_000
"""The splitter's time grows faster than its input, so it gets no more than this at once."""

_CHARACTERS_PER_TOKEN = 20
"""A chunk with more is not text to the tokenizer, which counts any word of over 100 letters as one token."""

_TINY_TOKENS = 10

_WORDS_KEPT = 200_000

_PROBE = "# A  probe:\n\n\tfoo.bar(x_1, 'y')  \n- naïve 東京 word-word\n\n```\n  indented = [1, 2]\n```\n"

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")


@dataclass(frozen=True)
class Chunk:
    index: int
    text: str


def split(text: str, tokenizer: Tokenizer, max_tokens: int) -> list[Chunk]:
    """The chunks in order, each of at most `max_tokens` tokens, not counting the model's special ones.

    Together they hold every character of the text but white space between them. Takes seconds for megabytes
    and lets other threads run meanwhile.
    """
    splitter = _splitter(tokenizer, max_tokens)
    spans = [
        span
        for start, section in _sections(text)
        for offset, piece in splitter.chunk_indices(section)
        for span in _bound(text, start + offset, start + offset + len(piece), max_tokens)
    ]
    _join_tiny_end(text, spans, tokenizer, max_tokens)
    return [Chunk(index, text[start:end]) for index, (start, end) in enumerate(spans)]


@lru_cache(maxsize=4)
def _splitter(tokenizer: Tokenizer, max_tokens: int) -> MarkdownSplitter:
    """Kept with the words it has counted, or with the copy it makes of the tokenizer."""
    if _counts_word_by_word(tokenizer):
        return MarkdownSplitter.from_callback(WordCounter(tokenizer), max_tokens)
    return MarkdownSplitter.from_huggingface_tokenizer(tokenizer, max_tokens)


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


def _counts_word_by_word(tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a text are those of its words; not so where spaces are tokens, for instance."""
    return WordCounter(tokenizer)(_PROBE) == _count(_PROBE, tokenizer)


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


def _bound(text: str, start: int, end: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    most = max_tokens * _CHARACTERS_PER_TOKEN
    while end - start > most:
        cut = _cut(text, start, start + most)
        yield start, cut
        start = cut
    yield start, end


def _join_tiny_end(text: str, spans: list[tuple[int, int]], tokenizer: Tokenizer, max_tokens: int) -> None:
    """A few last words say little alone; they join the chunk before them where they fit."""
    if len(spans) < 2:
        return
    (start, _), (tail, end) = spans[-2:]
    if end - start > max_tokens * _CHARACTERS_PER_TOKEN:
        return
    if _count(text[tail:end], tokenizer) < _TINY_TOKENS and _count(text[start:end], tokenizer) <= max_tokens:
        spans[-2:] = [(start, end)]


def _count(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
