"""Recognises a query that a text contains word for word, such as one copied from a page."""

import re
import unicodedata
from dataclasses import dataclass

MIN_CHARACTERS = 20
"""Too many texts contain shorter queries word for word."""

_LINK_TARGET = re.compile(r"\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Phrase:
    words: str

    @classmethod
    def of(cls, query: str) -> "Phrase | None":
        words = _words(query)
        return cls(words) if len(words) >= MIN_CHARACTERS else None

    def is_in(self, text: str) -> bool:
        return self.words in _words(text)


def _words(text: str) -> str:
    """The words alone, without case, width, punctuation, Markdown and the targets of links."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(_LINK_TARGET.sub("]", text)))
