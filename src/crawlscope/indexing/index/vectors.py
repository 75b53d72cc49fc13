"""Vectors as the engines take them, whatever they were made as."""

import numpy as np

from crawlscope.core.errors import IndexUnusable
from crawlscope.indexing.index.port import Floats, Integers


def as_floats(values: Floats) -> list[float]:
    plain: list[float] = np.asarray(values, dtype=np.float32).tolist()
    return plain


def as_integers(values: Integers) -> list[int]:
    plain: list[int] = np.asarray(values, dtype=np.uint32).tolist()
    return plain


def check_dimension(vector: Floats, dimension: int) -> None:
    if len(vector) != dimension:
        raise IndexUnusable(
            f"the index holds vectors of {dimension} dimensions and was handed one of {len(vector)}: "
            "the embedder was changed: run `crawlscope reindex`"
        )
