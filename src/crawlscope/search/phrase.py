"""Recognises a query that stands in a text word for word, as one pasted from a page does."""

import re
import unicodedata
from dataclasses import dataclass

FEWEST_CHARACTERS = 20
"""Shorter queries stand word for word in too many texts for that to say anything."""

_LINK_TARGET = re.compile(r"\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Phrase:
    words: str

    @classmethod
    def of(cls, query: str) -> "Phrase | None":
        words = _words(query)
        return cls(words) if len(words) >= FEWEST_CHARACTERS else None

    def stands_in(self, text: str) -> bool:
        return self.words in _words(text)


def _words(text: str) -> str:
    """Without case, width, punctuation and Markdown, the targets of links included."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(_LINK_TARGET.sub("]", text)))
