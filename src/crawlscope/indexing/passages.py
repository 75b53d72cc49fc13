"""What is embedded and encoded of a chunk: its text, with the title of its page before it."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from crawlscope.indexing.chunk import Chunk
from crawlscope.indexing.recipe import TITLE_TOKENS

_LONGEST_TITLE = 1_000
"""Characters, of which the tokenizer looks for the first tokens."""


def passages(title: str, chunks: Sequence[Chunk], tokenizer: Tokenizer) -> list[str]:
    """One for each chunk. A page is found by its title also where no chunk repeats it."""
    heading = _first_tokens(title[:_LONGEST_TITLE], tokenizer)
    return [f"{heading}\n\n{chunk.text}" if heading else chunk.text for chunk in chunks]


def _first_tokens(title: str, tokenizer: Tokenizer) -> str:
    offsets = tokenizer.encode(title, add_special_tokens=False).offsets
    return title[: offsets[TITLE_TOKENS - 1][1]].strip() if len(offsets) > TITLE_TOKENS else title
