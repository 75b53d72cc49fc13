"""Text to BM25 term weights: the sparse half of every chunk and query."""

import re
from itertools import pairwise

from qdrant_edge import Bm25, Bm25Config, TokenizerType
from qdrant_edge import SparseVector as EngineVector

from crawlscope.indexing.index.port import SparseVector

AVERAGE_CHUNK_WORDS = 100.0
K = 1.2
B = 0.75

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3040-\u30ff"  # Japanese syllables and iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # Chinese characters
    "]+"
)
"""Runs of the scripts that put no spaces between words."""


class Bm25Encoder:
    """Weights without IDF, which the index knows and applies when it is asked.

    Identifiers count whole and in parts: `getUserName` is found by itself and by `user name`. English
    words are stemmed, English stop words left out. In scripts without spaces every two neighbouring
    characters count as a word.
    """

    fingerprint = f"bm25:english:code:bigrams:k{K}:b{B}:len{AVERAGE_CHUNK_WORDS:g}"
    """Weights of two encoders belong in one index only if their fingerprints are equal."""

    def __init__(self) -> None:
        self._bm25 = Bm25(
            Bm25Config(
                k=K,
                b=B,
                avg_len=AVERAGE_CHUNK_WORDS,
                language="english",
                tokenizer=TokenizerType.Code,
            )
        )

    def encode_document(self, text: str) -> SparseVector:
        return _plain(self._bm25.embed_document(_spaced(text)))

    def encode_query(self, text: str) -> SparseVector:
        """Empty for a query of nothing but stop words and punctuation."""
        return _plain(self._bm25.embed_query(_spaced(text)))


def _plain(vector: EngineVector) -> SparseVector:
    return SparseVector(indices=vector.indices, values=vector.values)


def _spaced(text: str) -> str:
    return _UNSPACED.sub(lambda run: f" {_bigrams(run.group())} ", text)


def _bigrams(run: str) -> str:
    return " ".join(map("".join, pairwise(run))) or run
