"""What every embedder does with a text before the model sees it, and with the vectors that it answers."""

import numpy as np
from crawlscope_minilm import TOKENIZER_PATH
from tokenizers import Tokenizer

from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.indexing.embedders.port import Vectors

SPECIAL_TOKENS = 2
"""Put around each text by the models of this family, and counted in their limits."""


def load_minilm_tokenizer() -> Tokenizer:
    """The local model's tokenizer, made to count whole texts: its file says to cut and pad at 128 tokens."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_PATH))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encodable(text: str) -> str:
    """Half a surrogate pair, which JSON can bring and UTF-8 cannot carry, becomes a question mark."""
    return text.encode(errors="replace").decode()


def normalised(vectors: Vectors, embedder: str) -> Vectors:
    """Raises `EmbedderUnavailable` for numbers that are not finite and for a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EmbedderUnavailable(f"{embedder} answered vectors with numbers that are not finite.")
    if not lengths.all():
        raise EmbedderUnavailable(f"{embedder} answered a vector of zeros.")
    return np.asarray(vectors / lengths, np.float32)
