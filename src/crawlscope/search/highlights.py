"""The passages of a page that answer a query best, with the places of the query's words."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from crawlscope.indexing.blocks import closes, find_blocks
from crawlscope.indexing.index.port import ChunkPayload
from crawlscope.search.query_words import QueryWords
from crawlscope.search.schemas import Highlight, MatchedWord

MAX_CHARACTERS = 300
CONTEXT_CHARACTERS = 60
"""Before the first match in a sentence that is too long."""
MAX_CHUNKS_REMEMBERED = 2_000
"""Chunks whose sentences are remembered: some are found again and again. These take about 6 MB."""
MIN_PAGES_OF_BOILERPLATE = 3
"""A sentence that stands on so many pages of a site among the results says nothing about one of them."""

_MARKUP = re.compile(
    r"(?P<code>(?P<ticks>`+)[^`\n]+(?P=ticks))|\*\*|\\(?=[^\w\s])|^[ \t>]*(?:#{1,6}[ \t]|[-*_]{3,}[ \t]*$)",
    re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")


class Highlighter:
    """For the results of one query; `shown` are all chunks that may be highlighted."""

    def __init__(self, words: QueryWords, shown: Iterable[ChunkPayload]) -> None:
        self._words = words
        self._sentences: dict[tuple[str, int], list[str]] = {}
        urls: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for chunk in shown:
            self._sentences[_key(chunk)] = _sentences_of(chunk["text"])
            for sentence in self._sentences[_key(chunk)]:
                urls[chunk["domain"], sentence].add(chunk["url"])
        self._boilerplate = {one for one, found in urls.items() if len(found) >= MIN_PAGES_OF_BOILERPLATE}

    def highlights(self, chunks: Sequence[ChunkPayload]) -> list[Highlight]:
        """One of each chunk of a page, in their order; boilerplate only if there is nothing else."""
        found = []
        for chunk in chunks:
            every = self._sentences[_key(chunk)]
            if kept := [each for each in every if (chunk["domain"], each) not in self._boilerplate]:
                found.append(self._highlight(chunk, kept))
        return found or [self._highlight(chunk, self._sentences[_key(chunk)]) for chunk in chunks[:1]]

    def _highlight(self, chunk: ChunkPayload, sentences: Sequence[str]) -> Highlight:
        text = self._passage(sentences)
        matches = list[MatchedWord]()
        for match in self._words.find(text):
            if matches and match.start < matches[-1].end:  # overlapping ones are one
                matches[-1].end = max(match.end, matches[-1].end)
            else:
                matches.append(MatchedWord(start=match.start, end=match.end))
        return Highlight(text=text, chunk_index=chunk["chunk_index"], matches=matches)

    def _passage(self, sentences: Sequence[str]) -> str:
        """As many sentences as fit, from one with a word of the query on: those with most of its words."""
        terms = [self._words.terms(sentence) for sentence in sentences]
        best, most = range(1), -1
        for start in [number for number, found in enumerate(terms) if found] or [0]:
            end, size, words = start, 0, set[int]()
            while end < len(sentences) and (end == start or size + len(sentences[end]) < MAX_CHARACTERS):
                size += len(sentences[end]) + 1
                words |= terms[end]
                end += 1
            if len(words) > most:
                best, most = range(start, end), len(words)
        text = " ".join(sentences[number] for number in best)
        if len(text) <= MAX_CHARACTERS:
            return text
        # A long sentence is cut at blanks, from shortly before its first match on.
        first = next((match.start for match in self._words.find(text)), 0)
        start = max(0, first - CONTEXT_CHARACTERS)
        start = (start and text.find(" ", start, first) + 1) or start
        end = min(len(text), start + MAX_CHARACTERS - 2)
        if end < len(text):
            blank = text.rfind(" ", start + MAX_CHARACTERS // 2, end)
            end = blank if blank >= 0 else end
        return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _key(chunk: ChunkPayload) -> tuple[str, int]:
    return chunk["url"], chunk["chunk_index"]


def sentences(text: str) -> list[str]:
    """The sentences of a chunk, each on one line and without Markdown's marks; code is unchanged."""
    parts, read = list[str](), 0
    for block in find_blocks(text):
        if block.tail:  # fenced, no table
            parts.append(_MARKUP.sub(_code_in, text[read : block.start]))
            lines = text[block.body : block.end].splitlines(keepends=True)
            parts += lines[:-1] if lines and closes(lines[-1], block.tail.strip(" \t>")) else lines
            read = block.end
    parts.append(_MARKUP.sub(_code_in, text[read:]))
    found = _SENTENCE_END.split("".join(parts))
    return [sentence for part in found if (sentence := " ".join(part.split()))]


_sentences_of = lru_cache(maxsize=MAX_CHUNKS_REMEMBERED)(sentences)


def _code_in(mark: re.Match[str]) -> str:
    return mark["code"] or ""
