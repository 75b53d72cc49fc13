"""The passages of a page that answer a query best, with the places of the query's words."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
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
        pages: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for chunk in shown:
            pages[chunk["domain"], chunk["url"]].update(_sentences_of(chunk["text"]))
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (domain, _), found in pages.items():
            counts[domain].update(found)
        self._boilerplate = {
            domain: {one for one, count in counted.items() if count >= MIN_PAGES_OF_BOILERPLATE}
            for domain, counted in counts.items()
        }

    def highlights(self, chunks: Sequence[ChunkPayload]) -> list[Highlight]:
        """One of each chunk of a page, in their order; boilerplate only if there is nothing else."""
        found = []
        for chunk in chunks:
            boilerplate = self._boilerplate[chunk["domain"]]
            if kept := [each for each in _sentences_of(chunk["text"]) if each not in boilerplate]:
                found.append(self._highlight(chunk, kept))
        return found or [self._highlight(chunk, _sentences_of(chunk["text"])) for chunk in chunks[:1]]

    def _highlight(self, chunk: ChunkPayload, sentences: Sequence[str]) -> Highlight:
        terms = [self._words.terms(sentence) for sentence in sentences]
        best = _best_passage(sentences, terms)
        text = " ".join(sentences[number] for number in best)
        if len(text) > MAX_CHARACTERS:
            parts = [(text := self._cut(text), True)]
        else:
            parts = [(sentences[number], bool(terms[number])) for number in best]
        matches, start = list[MatchedWord](), 0
        for part, has_matches in parts:
            for match in self._words.find(part) if has_matches else ():
                if matches and start + match.start < matches[-1].end:  # overlapping ones are one
                    matches[-1].end = max(start + match.end, matches[-1].end)
                else:
                    matches.append(MatchedWord(start + match.start, start + match.end))
            start += len(part) + 1
        return Highlight(text, chunk["chunk_index"], matches)

    def _cut(self, text: str) -> str:
        """A long sentence, cut at blanks, from shortly before its first match on."""
        first = next((match.start for match in self._words.find(text)), 0)
        start = max(0, first - CONTEXT_CHARACTERS)
        start = (start and text.find(" ", start, first) + 1) or start
        end = min(len(text), start + MAX_CHARACTERS - 2)
        if end < len(text):
            blank = text.rfind(" ", start + MAX_CHARACTERS // 2, end)
            end = blank if blank >= 0 else end
        return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _best_passage(sentences: Sequence[str], terms: Sequence[Set[int]]) -> range:
    """As many sentences as fit, from one with a word of the query on: those with most of its words."""
    every = len(set().union(*terms))
    best, most = range(1), -1
    for start in [number for number, found in enumerate(terms) if found] or [0]:
        end, size, words = start, 0, set[int]()
        while end < len(sentences) and (end == start or size + len(sentences[end]) < MAX_CHARACTERS):
            size += len(sentences[end]) + 1
            words |= terms[end]
            end += 1
        if len(words) > most:
            best, most = range(start, end), len(words)
        if most == every:
            break
    return best


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
