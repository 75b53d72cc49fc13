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
    words: tuple[str, ...]

    @classmethod
    def of(cls, query: str) -> "Phrase | None":
        words = _words(_folded(query))
        return cls(tuple(words)) if len(" ".join(words)) >= MIN_CHARACTERS else None

    def is_in(self, text: str) -> bool:
        folded = _folded(text)
        if not all(word in folded for word in self.words):  # most texts, ten times as fast
            return False
        return " ".join(self.words) in " ".join(_words(folded))


def _folded(text: str) -> str:
    """Without case and width."""
    return unicodedata.normalize("NFKC", text).casefold()


def _words(folded: str) -> list[str]:
    """The words alone, without punctuation, Markdown and the targets of links."""
    words: list[str] = _WORD.findall(_LINK_TARGET.sub("]", folded))
    return words
