"""Embeds on this computer with a model of the optional package `fastembed`, which downloads it once."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from crawlscope.core.errors import EmbedderUnavailable, SettingsError
from crawlscope.core.fair_pool import FairThreadPool
from crawlscope.indexing.embedders.common import SPECIAL_TOKENS, counting_tokenizer, encodable, normalised
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors
from crawlscope.timing import note_wait

DEFAULT_MODEL = "BAAI/bge-small-en-v1.5"


class FastembedEmbedder:
    """Runs the model on one text at a time, like the local embedder: in quantised models the texts of a run
    change each other's vectors.
    """

    def __init__(self, model: str = DEFAULT_MODEL, threads: int = 1) -> None:
        """Blocks while it loads the model, and while it downloads it the first time."""
        self._embedding = _load(model, threads)
        tokenizer: Tokenizer = self._embedding.model.tokenizer
        self._max_tokens: int = (tokenizer.truncation or {}).get("max_length", 512) - SPECIAL_TOKENS
        self._tokenizer = counting_tokenizer(tokenizer.to_str())
        self._identity = EmbedderIdentity("fastembed", model, "", len(self._embed_one(model)))
        self._pool = FairThreadPool(1, note_wait)

    @property
    def identity(self) -> EmbedderIdentity:
        return self._identity

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = await self._pool.map(self._embed_one, texts)
        if not rows:
            return np.empty((0, self._identity.dimension), np.float32)
        return normalised(np.stack(rows), "fastembed")

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _embed_one(self, text: str) -> Any:
        (row,) = self._embedding.embed([encodable(text)], batch_size=1)
        return row


def _load(model: str, threads: int) -> Any:
    try:
        fastembed = importlib.import_module("fastembed")
    except ImportError:
        raise SettingsError(
            "CRAWLSCOPE_EMBEDDER=fastembed needs a package that is not installed: pip install fastembed."
        ) from None
    known = {description["model"] for description in fastembed.TextEmbedding.list_supported_models()}
    if model not in known:
        raise SettingsError(f"CRAWLSCOPE_EMBEDDER_MODEL: fastembed has no model {model}.")
    try:
        return fastembed.TextEmbedding(model, threads=threads)
    except (OSError, ValueError) as error:
        raise EmbedderUnavailable(f"fastembed cannot load {model} ({type(error).__name__}).") from error
