"""BM25 term weights of texts: the sparse half of every chunk and query."""

import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

import numpy as np
from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet, TokenizerType

from crawlscope.core.known import Known
from crawlscope.indexing.index.port import SparseVector
from crawlscope.indexing.language import ENGLISH
from crawlscope.indexing.unspaced import ngrams

AVERAGE_CHUNK_WORDS = 100.0
AVERAGE_CHUNK_PAIRS = 200.0
"""The average for a chunk in a script without spaces."""
K = 1.2
B = 0.75
COUNTING_K = 1e6
"""With so large a `k`, and `b` of 0, the weight of a term is the number of times it stands in the text."""

MAX_WORDS_KEPT = 20_000
"""Words of a language whose terms an encoder remembers."""
MAX_LANGUAGES_KEPT = 4
MAX_SIGNS_KEPT = 5_000
_WORD_CHARACTERS = f"{string.ascii_letters}{string.digits}_"
_BLANKS = bytes(code if chr(code) in _WORD_CHARACTERS else ord(" ") for code in range(256))
"""Blanks for the characters of ASCII that separate words for the engine, too."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SEPARATORS = "PSZ"
"""The categories of punctuation, symbols and separators in Unicode."""

_MARK = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]")
"""Matches wherever `_MARKS` does."""
_MARKS = re.compile(
    "[\u0300\u0301]"  # accents, also those that show the stress of a Russian word
    "|(?<![\u0400-\u052f])[\u0302-\u036f]"  # й and ї are letters of their own
    "|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"  # Hebrew points
    "|[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"  # Arabic vowel signs
)
_ONE_LETTER = str.maketrans("ёЁىیکة", "еЕييكه")
"""Letters that are written for each other."""
_DIGIT = re.compile(r"[^\D0-9]")
_UMLAUTS = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "Ä": "Ae",
        "Ö": "Oe",
        "Ü": "Ue",
        "å": "aa",
        "Å": "Aa",
        "ø": "oe",
        "Ø": "Oe",
    }
)


_SNOWBALL = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "tr": "turkish",
}
"""The languages whose words the engine stems, and whose stop words it knows."""
_IN_PAIRS = {"ja", "km", "ko", "lo", "my", "th", "zh"}
"""The languages whose words are pairs of characters. Their words with spaces around them are names as a rule,
and those of code: both stemmed as English.
"""


class Bm25Encoder:
    """Weights without IDF, which the index knows and applies to queries.

    Identifiers count whole and in parts: `getUserName` is found by `getUserName` and by `user name`. Words
    are stemmed by the language of the text, and its stop words left out; a text of unknown language counts as
    English, and the words of a language without a stemmer stay as they are. Accents, vowel signs, width and
    the script of digits make no difference; `ü` is also `ue`. In scripts without spaces, and in Korean, every
    two neighbouring characters count as a word, and in documents every single character too.
    """

    fingerprint = (
        f"bm25:stemmed:code:folded:unigrams+bigrams:k{K}:b{B}"
        f":len{AVERAGE_CHUNK_WORDS:g}:pairs{AVERAGE_CHUNK_PAIRS:g}"
    )
    """Weights of two encoders may share an index only if their fingerprints are equal."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str | None, bool, float, float], Bm25] = {}
        self._known: dict[str, Known[bytes, tuple[int, ...]]] = {}
        self._signs = Known(self._blank_for, MAX_SIGNS_KEPT)

    def encode_documents(self, texts: Sequence[str], language: str = "") -> list[SparseVector]:
        """The vectors that `encode_document` makes, in half of the time: the engine is asked once for a word.

        The fast way is for texts whose words are all in ASCII: there, both ways agree on what a word is, and
        most words return.
        """
        plain = [text if text.isascii() else _NOT_ASCII.sub(self._without_sign, text) for text in texts]
        vectors = iter(self._weigh(list(filter(str.isascii, plain)), language))
        return [
            next(vectors) if without_signs.isascii() else self.encode_document(text, language)
            for text, without_signs in zip(texts, plain, strict=True)
        ]

    def _without_sign(self, found: re.Match[str]) -> str:
        return self._signs[found[0]]

    def _blank_for(self, character: str) -> str:
        """A blank for a sign that only separates words, such as a dash; any other character as it is."""
        separates = (
            unicodedata.category(character)[0] in _SEPARATORS
            and not any(map(str.isalnum, unicodedata.normalize("NFKC", character)))
            and list(self.encode_document(f"left{character}right").indices)
            == list(self.encode_document("left right").indices)
        )
        return " " if separates else character

    def encode_document(self, text: str, language: str = "") -> SparseVector:
        """The highest weight of each term over all readings; none of them makes the text longer.

        `language` is a primary tag.
        """
        bm25 = self._bm25(language)
        readings = [spaced for each in _spellings(text) for spaced in (ngrams(each, 2), ngrams(each, 1))]
        vectors = [bm25.embed_document(each) for each in dict.fromkeys(readings)]
        if len(vectors) == 1:
            return SparseVector(indices=vectors[0].indices, values=vectors[0].values)
        weights: dict[int, float] = {}
        for vector in vectors:
            for term, weight in zip(vector.indices, vector.values, strict=True):
                weights[term] = max(weight, weights.get(term, 0.0))
        return _vector(weights)

    def encode_query(self, text: str, languages: Collection[str] = ("",)) -> SparseVector:
        """Empty for a query of stop words and punctuation only.

        A query that may be in several languages has the terms of each, and no word that is a stop word in one
        of them unless all are: such a word is rare in texts of the others, and would count most. A word with
        two spellings counts once: each spelling has half of its weight. A repeated word counts as often as it
        stands there.
        """
        counters = [self._bm25(language, k=COUNTING_K, b=0.0) for language in languages]
        encoders = {id(bm25): bm25 for bm25 in counters}.values()
        spellings = [ngrams(each, 2) for each in _spellings(text)]
        if len(encoders) > 1:
            spellings = [_without_stop_words(each, encoders) for each in spellings]
        weights: dict[int, float] = {}
        for bm25 in encoders:
            in_language: defaultdict[int, float] = defaultdict(float)
            for vector in map(bm25.embed_document, spellings):
                for term, count in zip(vector.indices, vector.values, strict=True):
                    in_language[term] += round(count) / len(spellings)
            weights |= {term: max(weight, weights.get(term, 0.0)) for term, weight in in_language.items()}
        return _vector(weights)

    def _weigh(self, texts: Sequence[str], language: str) -> list[SparseVector]:
        terms_of = self._terms_of(language).__getitem__
        found = [
            list(chain.from_iterable(map(terms_of, text.encode().translate(_BLANKS).split())))
            for text in texts
        ]
        sizes = np.fromiter(map(len, found), np.intp, len(found))
        # Sorted by text and term.
        each = np.repeat(np.arange(len(found), dtype=np.uint64) << np.uint64(32), sizes)
        each |= np.fromiter(chain.from_iterable(found), np.uint64, len(each))
        unique, counts = np.unique(each, return_counts=True)
        text_of = (unique >> np.uint64(32)).astype(np.intp)
        saturation = K * (1 - B + B * sizes / _average_size(language))
        weights = (counts * (K + 1) / (counts + saturation[text_of])).astype(np.float32)
        terms, bounds = unique.astype(np.uint32), np.searchsorted(text_of, np.arange(len(found) + 1)).tolist()
        return [SparseVector(terms[start:end], weights[start:end]) for start, end in pairwise(bounds)]

    def _terms_of(self, language: str) -> Known[bytes, tuple[int, ...]]:
        """The terms of each word, as often as it has them."""
        if language not in self._known:
            if len(self._known) == MAX_LANGUAGES_KEPT:
                self._known.clear()
            counter = self._bm25(language, k=COUNTING_K, b=0.0)
            self._known[language] = Known(partial(_terms, counter), MAX_WORDS_KEPT)
        return self._known[language]

    def _bm25(self, language: str, k: float = K, b: float = B) -> Bm25:
        in_pairs = language in _IN_PAIRS
        stemmer = _SNOWBALL.get(ENGLISH if in_pairs or not language else language)
        kind = (stemmer, in_pairs, k, b)
        if kind not in self._opened:
            neutral = {"stemmer": DisabledStemmer(), "stopwords": StopwordsSet(custom=set())}
            options: dict[str, Any] = {"language": stemmer} if stemmer else neutral
            self._opened[kind] = Bm25(
                Bm25Config(
                    k=k,
                    b=b,
                    avg_len=_average_size(language),
                    tokenizer=TokenizerType.Code,
                    ascii_folding=True,
                    **options,
                )
            )
        return self._opened[kind]


def _average_size(language: str) -> float:
    return AVERAGE_CHUNK_PAIRS if language in _IN_PAIRS else AVERAGE_CHUNK_WORDS


def _terms(counter: Bm25, word: bytes) -> tuple[int, ...]:
    counted = counter.embed_document(word.decode())
    pairs = zip(counted.indices, counted.values, strict=True)
    return tuple(term for term, count in pairs for _ in range(round(count)))


def _without_stop_words(text: str, encoders: Collection[Bm25]) -> str:
    words = text.split()
    kept = [word for word in words if all(bm25.embed_query(word).indices for bm25 in encoders)]
    return " ".join(kept or words)


def _vector(weights: dict[int, float]) -> SparseVector:
    terms = sorted(weights)
    return SparseVector(terms, [weights[term] for term in terms])


def _spellings(text: str) -> list[str]:
    """The text with variants of characters folded, and once more with umlauts written as two letters."""
    if text.isascii():
        return [text]
    text = unicodedata.normalize("NFKC", text)
    return [_folded(each) for each in dict.fromkeys([text, text.translate(_UMLAUTS)])]


def _folded(text: str) -> str:
    """The engine itself removes the marks of Latin letters."""
    bare = unicodedata.normalize("NFD", text.translate(_ONE_LETTER))
    if _MARK.search(bare):
        bare = _MARKS.sub("", bare)
    return _DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), unicodedata.normalize("NFC", bare))
