"""Finds the words of a query in a text, in any form that the index takes for the same."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from crawlscope.indexing.index.port import SparseVector
from crawlscope.indexing.unspaced import ngrams

Encode: TypeAlias = Callable[[str], SparseVector]
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
"""`get`, `User` and `Name` of `getUserName`."""
_MIN_LETTERS_KEPT = 3


class Match(NamedTuple):
    start: int
    end: int
    terms: frozenset[int]
    """The terms of the word that the query has, too."""


class QueryTerms(dict[str, frozenset[int]]):
    """The terms that a word and the query have in common; each word is encoded once, and most never are."""

    def __init__(self, query: str, encode: Encode) -> None:
        super().__init__()
        self._encode = encode
        self._terms = frozenset(int(term) for term in encode(query).indices)
        decomposed = unicodedata.normalize("NFKD", query)  # the index folds accents
        plain = "".join(each for each in decomposed if not unicodedata.combining(each))
        parts = [*_WORD.findall(plain), *_PART.findall(plain)]
        found = {part.casefold() for part in parts if self._common(part)}
        self.beginnings = tuple({word[: max(_MIN_LETTERS_KEPT, len(word) // 2)] for word in found})
        """The beginnings of the query's words that stemming does not change."""

    def __missing__(self, word: str) -> frozenset[int]:
        lower = word.lower()
        may_match = not word.isascii() or lower.startswith(self.beginnings)
        if not may_match and word != lower:  # a part of `getUserName` may
            may_match = any(part.lower().startswith(self.beginnings) for part in _PART.findall(word))
        terms = self[word] = self._common(word) if may_match else frozenset()
        return terms

    def _common(self, word: str) -> frozenset[int]:
        return self._terms.intersection(map(int, self._encode(word).indices))


class QueryWords:
    """`encode` makes the terms of a text, as for a query."""

    def __init__(self, query: str, encode: Encode) -> None:
        self._terms_of = QueryTerms(query, encode)

    def find(self, text: str) -> Iterator[Match]:
        """In order. In scripts without spaces, a match has one or two characters."""
        if text.isascii():
            for word in _WORD.finditer(text):
                if terms := self._terms_of[word[0]]:
                    yield Match(*word.span(), terms)
            return
        for word in _WORD.finditer(text):
            written = word[0]
            if written.isascii() or ngrams(written, 2) == written:
                if terms := self._terms_of[written]:
                    yield Match(word.start(), word.end(), terms)
                continue
            for start in range(word.start(), word.end()):
                for end in (start + 2, start + 1):
                    if end <= word.end() and (terms := self._terms_of[text[start:end]]):
                        yield Match(start, end, terms)
                        break

    def terms(self, text: str) -> set[int]:
        """All that the text has of the query; much faster than the matches."""
        if text.isascii():
            if not any(map(text.lower().__contains__, self._terms_of.beginnings)):  # most sentences
                return set()
            return set().union(*filter(None, map(self._terms_of.__getitem__, _WORD.findall(text))))
        found, words = set[int](), _WORD.findall(text)
        found.update(*filter(None, map(self._terms_of.__getitem__, filter(str.isascii, words))))
        found.update(*(match.terms for word in words if not word.isascii() for match in self.find(word)))
        return found
