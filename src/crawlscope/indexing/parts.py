"""The meaning of single parts of a text, in about 100 bytes each, from the run of the model that embeds the
text.

The vector of 200 tokens is far from a question that one sentence of them answers. A part is stored as its
difference to the vector of the whole text, with two bits for each dimension: the similarity of a query to the
part is then the known one to the whole text, and a small surplus that needs few bits.
"""

from base64 import b64decode, b64encode
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import isfinite
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

PART_TOKENS = 32

Floats: TypeAlias = npt.NDArray[np.float32]
Key = TypeVar("Key", bound=Hashable)

_LEVELS = np.array([-1.51, -0.4528, 0.4528, 1.51], np.float32)
"""The levels of a value, in standard deviations: the four that fit a normal distribution best."""
_LIMITS = np.array([-0.9816, 0.0, 0.9816], np.float32)[:, None, None]
"""The limits between the levels."""
_PLACES = np.array([0, 2, 4, 6], np.uint8)
"""The bits at which the four values of a byte begin."""
_VALUES = _LEVELS[np.arange(256)[:, None] >> _PLACES & 3]
"""The four values of each byte."""
_SCALE_BYTES = 2


def sums_of_parts(tokens: Floats) -> Floats:
    """The sum of each part, from the weighted vectors of the tokens of a text."""
    whole = len(tokens) - len(tokens) % PART_TOKENS
    sums: Floats = tokens[:whole].reshape(-1, PART_TOKENS, tokens.shape[1]).sum(axis=1)
    return sums if whole == len(tokens) else np.vstack([sums, tokens[whole:].sum(axis=0)])


def pack_parts(sums: Sequence[Floats], wholes: Floats) -> list[str]:
    """The parts of texts, from the sums of the parts of each and the vectors of the texts, of length 1. All
    at once, because each call of NumPy takes long after a run of the model.

    The dimension must be a multiple of four.
    """
    counts, every = [*map(len, sums)], np.concatenate(sums)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    differences = every - np.repeat(wholes, counts, axis=0)
    scales = np.maximum(np.sqrt((differences**2).mean(axis=1, keepdims=True)), 1e-4).astype("<f2")
    levels = (differences / scales > _LIMITS).sum(axis=0, dtype=np.uint8)
    packed = np.bitwise_or.reduce(levels.reshape(len(every), -1, 4) << _PLACES, axis=2)
    rows = np.hstack([scales.view(np.uint8), packed])
    ends = accumulate(counts, initial=0)
    return [b64encode(rows[start:end].tobytes()).decode() for start, end in pairwise(ends)]


def surpluses(query: Floats, texts: Mapping[Key, str]) -> dict[Key, float]:
    """How much nearer the query is to the best part of each text than to the whole.

    A text has none if it is empty, or damaged.
    """
    size = _SCALE_BYTES + len(query) // 4
    rows = {key: row for key, text in texts.items() if (row := _rows(text, size)) is not None}
    if not rows:
        return {}
    every = np.vstack([*rows.values()])
    scales = every[:, :_SCALE_BYTES].copy().view("<f2")[:, 0].astype(np.float32)
    differences = _VALUES[every[:, _SCALE_BYTES:]].reshape(len(every), -1)
    starts = np.cumsum([0, *map(len, rows.values())])[:-1]
    found = np.maximum.reduceat(scales * (differences @ query), starts)
    return {key: each for key, each in zip(rows, found.tolist(), strict=True) if isfinite(each)}


def _rows(text: str, size: int) -> npt.NDArray[np.uint8] | None:
    try:
        packed = np.frombuffer(b64decode(text), np.uint8)
    except ValueError:
        return None
    return packed.reshape(-1, size) if len(packed) and not len(packed) % size else None
