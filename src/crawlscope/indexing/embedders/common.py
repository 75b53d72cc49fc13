"""Shared by the embedders: tokenizers, encodable texts, normalised vectors."""

from functools import cache

import numpy as np
from crawlscope_minilm import TOKENIZER_PATH
from tokenizers import Tokenizer

from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.indexing.embedders.port import Vectors

SPECIAL_TOKENS = 2
"""Models of this family add these to each text, and their limits include them."""


@cache
def load_minilm_tokenizer() -> Tokenizer:
    """The local model's tokenizer, which counts whole texts; its file says to cut and pad at 128 tokens."""
    return counting_tokenizer(TOKENIZER_PATH.read_text())


def counting_tokenizer(definition: str) -> Tokenizer:
    """A tokenizer that neither pads nor truncates, from its definition in JSON."""
    tokenizer = Tokenizer.from_str(definition)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encodable(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 cannot encode, by question marks."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def normalised(vectors: Vectors, embedder: str) -> Vectors:
    """Scales to length 1. Raises `EmbedderUnavailable` for numbers that are not finite and zero vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EmbedderUnavailable(f"{embedder} answered vectors with numbers that are not finite.")
    if not lengths.all():
        raise EmbedderUnavailable(f"{embedder} answered a vector of zeros.")
    return np.asarray(vectors / lengths, np.float32)
