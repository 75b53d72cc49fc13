"""Vectors of length 1, whatever an embedder answered."""

import numpy as np

from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.indexing.embedding import Vectors


def normalised(vectors: Vectors, embedder: str) -> Vectors:
    """Raises `EmbedderUnavailable` for numbers that are not finite and for a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EmbedderUnavailable(f"{embedder} answered vectors with numbers that are not finite.")
    if not lengths.all():
        raise EmbedderUnavailable(f"{embedder} answered a vector of zeros.")
    return np.asarray(vectors / lengths, np.float32)
