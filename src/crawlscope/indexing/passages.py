"""What is embedded and encoded of a chunk: its text, with what it stands under on its page before it."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from crawlscope.indexing.blocks import find_blocks
from crawlscope.indexing.chunk import Chunk
from crawlscope.indexing.generations.recipe import CONTEXT_TOKENS

_HEADING = re.compile(r"^(?P<marks>#{1,6})[ \t]+(?P<words>\S.*?)[ \t#]*$", re.MULTILINE)
_LONGEST_CONTEXT = 1_000
"""Characters, of which the tokenizer looks for the first tokens."""


def passages(title: str, text: str, chunks: Sequence[Chunk], tokenizer: Tokenizer) -> list[str]:
    """One for each chunk of the text. A page is found by its title, and a section by its headings, also where
    no chunk repeats them.
    """
    return [
        _passage(
            [title, *(words for words in path if words.casefold() != title.casefold())], chunk, tokenizer
        )
        for chunk, path in zip(chunks, _paths(text, chunks), strict=True)
    ]


def _passage(names: Sequence[str], chunk: Chunk, tokenizer: Tokenizer) -> str:
    context = _first_tokens(" > ".join(filter(None, names))[:_LONGEST_CONTEXT], tokenizer)
    return f"{context}\n\n{chunk.text}" if context else chunk.text


def _first_tokens(text: str, tokenizer: Tokenizer) -> str:
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return text[: offsets[CONTEXT_TOKENS - 1][1]].strip() if len(offsets) > CONTEXT_TOKENS else text


def _paths(text: str, chunks: Sequence[Chunk]) -> Iterator[list[str]]:
    """The headings that each chunk stands under, the highest first; none that it begins with."""
    above: list[tuple[int, str]] = []
    headings = _headings(text)
    heading = next(headings, None)
    for chunk in chunks:
        while heading and heading.start() < chunk.start:
            level = len(heading["marks"])
            above = [(each, words) for each, words in above if each < level]
            above.append((level, heading["words"]))
            heading = next(headings, None)
        own = len(heading["marks"]) if heading and heading.start() == chunk.start else 7
        yield [words for level, words in above if level < own]


def _headings(text: str) -> Iterator[re.Match[str]]:
    """Not the comments in code that look like some."""
    blocks = find_blocks(text)
    starts = [block.start for block in blocks]
    for heading in _HEADING.finditer(text):
        block = bisect_right(starts, heading.start()) - 1
        if block < 0 or heading.start() >= blocks[block].end:
            yield heading
