"""The text that is embedded with a chunk's own words: the title and the headings above it."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from crawlscope.indexing.blocks import find_blocks
from crawlscope.indexing.chunk import Chunk, token_counter
from crawlscope.indexing.generations.recipe import CONTEXT_TOKENS

_HEADING = re.compile(r"\n(?P<marks>#{1,6})[ \t]+(?P<words>\S.*)")
_MAX_CONTEXT_CHARACTERS = 1_000
"""Limits the work for each chunk: the tokenizer then cuts to `CONTEXT_TOKENS`."""


def passages(title: str, text: str, chunks: Sequence[Chunk], tokenizer: Tokenizer) -> list[str]:
    """One for each chunk of the text: title and headings make a chunk findable that does not repeat them."""
    found, count, title = [], token_counter(tokenizer), title[:_MAX_CONTEXT_CHARACTERS]
    for chunk, path in zip(chunks, _paths(text, chunks), strict=True):
        names = [title, *(words for words in path if words.casefold() != title.casefold())]
        context = " > ".join(filter(None, names))[:_MAX_CONTEXT_CHARACTERS]
        if count(context) > CONTEXT_TOKENS:
            offsets = tokenizer.encode(context, add_special_tokens=False).offsets[:CONTEXT_TOKENS]
            context = context[: offsets[-1][1]].strip()
        found.append(f"{context}\n\n{chunk.text}" if context else chunk.text)
    return found


def _paths(text: str, chunks: Sequence[Chunk]) -> Iterator[list[str]]:
    """The headings above each chunk, the highest first, without the one that the chunk begins with."""
    above: list[tuple[int, str]] = []
    # Comments in code look like headings.
    blocks = find_blocks(text)
    starts = [block.start for block in blocks]

    def is_outside_blocks(heading: re.Match[str]) -> bool:
        before = bisect_right(starts, heading.start()) - 1
        return before < 0 or heading.start() >= blocks[before].end

    headings = filter(is_outside_blocks, _HEADING.finditer(f"\n{text}"))  # so each starts as in the text
    heading = next(headings, None)
    for chunk in chunks:
        while heading and heading.start() < chunk.start:
            level = len(heading["marks"])
            above = [(each, words) for each, words in above if each < level]
            words = heading["words"].rstrip(" \t#")[:_MAX_CONTEXT_CHARACTERS]
            above.append((level, words))
            heading = next(headings, None)
        own = len(heading["marks"]) if heading and heading.start() == chunk.start else 7
        yield [words for level, words in above if level < own]
