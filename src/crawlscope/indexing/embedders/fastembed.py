"""Embeds on this computer with a model of the optional package `fastembed`, which downloads it once."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from crawlscope.core.errors import EmbedderUnavailable, SettingsError
from crawlscope.indexing.embedders.common import SPECIAL_TOKENS, encodable, normalised
from crawlscope.indexing.embedders.port import EmbedderIdentity, Vectors
from crawlscope.indexing.embedders.turns import Turns

DEFAULT_MODEL = "BAAI/bge-small-en-v1.5"


class FastembedEmbedder:
    """One text per run, as in the local embedder: quantised models mix what they are given together."""

    def __init__(self, model: str = DEFAULT_MODEL, threads: int = 1) -> None:
        """Blocks while it loads the model, and the first time downloads it."""
        self._embedding = _load(model, threads)
        self._tokenizer, self._max_tokens = _whole_text_tokenizer(self._embedding.model.tokenizer)
        self._identity = EmbedderIdentity("fastembed", model, "", len(self._embed_one(model)))
        self._turns = Turns(1)

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
        rows = await self._turns.map(self._embed_one, texts)
        if not rows:
            return np.empty((0, self._identity.dimension), np.float32)
        return normalised(np.stack(rows), "fastembed")

    async def aclose(self) -> None:
        await self._turns.aclose()

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


def _whole_text_tokenizer(model_tokenizer: Tokenizer) -> tuple[Tokenizer, int]:
    """A copy that neither pads nor truncates, and the length at which the model's own truncates."""
    longest = (model_tokenizer.truncation or {}).get("max_length", 512)
    tokenizer = Tokenizer.from_str(model_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, longest - SPECIAL_TOKENS
