"""Makes the scores of the two halves of a query comparable, and adds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from crawlscope.indexing.embedders.models import reads

DENSE_WEIGHT = 0.6
"""The share of the dense half; BM25 has the rest."""
UNREAD_WEIGHT = 0.2
"""For a language that the model does not read: names and borrowed words are left of the meaning."""
MIN_DEVIATION = 1e-6
"""Of the best score: less is the rounding of equal scores."""


def dense_weight(model: str, languages: Sequence[str]) -> float:
    """The share of the dense half for a query that is in one of these languages."""
    weights = [DENSE_WEIGHT if reads(model, language) else UNREAD_WEIGHT for language in languages]
    return sum(weights) / len(weights)


@dataclass(frozen=True)
class Half:
    """What one half of a query found: the best score of each page."""

    scores: Mapping[Any, float]
    floor: float = 0.0
    """The score of a page that it did not find."""


@dataclass(frozen=True)
class Fusion:
    """A score is the weighted sum of what each half gives above its floor."""

    bm25_floor: float
    dense_floor: float
    bm25_factor: float
    dense_factor: float

    @classmethod
    def of(cls, bm25: Half, dense: Half, dense_weight: float = DENSE_WEIGHT) -> Self:
        """Measures each half in its standard deviation over the pages that either half found.

        So a few hits that stand out in one half count for more than many that hardly differ. The best of both
        halves is 1; if a half found nothing, the best of the other is its weight.
        """
        pages = bm25.scores.keys() | dense.scores.keys()
        factors, best, weight = [], 0.0, 0.0
        for half, share in ((bm25, 1 - dense_weight), (dense, dense_weight)):
            height = max(half.scores.values(), default=half.floor) - half.floor
            deviation = float(np.std([half.scores.get(page, half.floor) for page in pages])) if pages else 0.0
            is_flat = deviation <= MIN_DEVIATION * height
            factors.append(share / ((height if is_flat else deviation) or 1.0))
            if half.scores:
                best += factors[-1] * height
                weight += share
        scale = weight / best if best else 1.0
        return cls(bm25.floor, dense.floor, scale * factors[0], scale * factors[1])

    def score(self, bm25: float | None, dense: float | None) -> float:
        """From 0 to 1. None is a half that did not find it; what is below a floor counts as not found."""
        found = 0.0
        if bm25 is not None and bm25 > self.bm25_floor:
            found += self.bm25_factor * (bm25 - self.bm25_floor)
        if dense is not None and dense > self.dense_floor:
            found += self.dense_factor * (dense - self.dense_floor)
        return min(1.0, found)
