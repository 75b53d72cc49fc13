"""Finds the words of a query in a text, in any form that the index takes for the same."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from crawlscope.indexing.index.port import SparseVector
from crawlscope.indexing.sparse import ngrams

Encode: TypeAlias = Callable[[str], SparseVector]
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
"""`get`, `User` and `Name` of `getUserName`."""
_MIN_LETTERS_KEPT = 3


class Match(NamedTuple):
    start: int
    end: int
    terms: frozenset[int]
    """Of the index, that the query has too."""


class QueryWords:
    """`encode` makes the terms of a text, as for a query."""

    def __init__(self, query: str, encode: Encode) -> None:
        self._encode = encode
        self._terms = frozenset(int(term) for term in encode(query).indices)
        self._known: dict[str, frozenset[int]] = {}
        plain = _without_marks(query)
        parts = [*_WORD.findall(plain), *_PART.findall(plain)]
        prefixes = {_beginning(part.casefold()) for part in parts if self._terms_of(part)}
        words = sorted({form for each in prefixes for form in (each, each.capitalize(), each.upper())})
        parts_of_words = sorted({each.capitalize() for each in prefixes})
        self._candidate = re.compile(
            rf"(?:(?<![^\W_])(?:{_either(words)})|(?<=[a-z0-9])(?:{_either(parts_of_words)}))[^\W_]*"
        )

    def find(self, text: str) -> Iterator[Match]:
        """In order. In scripts without spaces, a match has one or two characters. `UserName` is one if only
        this part of `getUserName` begins like a word of the query.
        """
        candidates = self._candidate if text.isascii() else _WORD
        for word in candidates.finditer(text):
            if word[0].isascii() or ngrams(word[0], 2) == word[0]:
                if terms := self._terms_of(word[0]):
                    yield Match(word.start(), word.end(), terms)
                continue
            for start in range(word.start(), word.end()):
                for end in (start + 2, start + 1):
                    if end <= word.end() and (terms := self._terms_of(text[start:end])):
                        yield Match(start, end, terms)
                        break

    def _terms_of(self, word: str) -> frozenset[int]:
        """Those that the query has too."""
        if word not in self._known:
            self._known[word] = self._terms.intersection(map(int, self._encode(word).indices))
        return self._known[word]


def _beginning(word: str) -> str:
    """What stemming leaves of it."""
    return word[: max(_MIN_LETTERS_KEPT, len(word) // 2)]


def _either(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words)) or "(?!)"


def _without_marks(text: str) -> str:
    """Without accents, as the index folds them."""
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
