"""Makes the scores of the two halves of a query comparable, and adds them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from crawlscope.indexing.embedders.models import reads

DENSE_WEIGHT = 0.65
"""The share of the dense half; BM25 has the rest."""
NAMING_WEIGHT = 0.4
"""For a query with a name of code, which says itself what the page must contain, and hardly means anything
to a model.
"""
UNREAD_WEIGHT = 0.2
"""For a language that the model does not read: only names and borrowed words keep their meaning."""
EMPHASIS = 2.0
"""The power for the height of a score above its floor, if the dense half has most of the weight: its many
hits near the floor hardly differ. Those of BM25 differ by a word."""
MIN_DEVIATION = 1e-6
"""A share of the best score: less is the rounding of equal scores."""

_NAME_OF_CODE = re.compile(r"[a-z]\d*[A-Z]|[A-Z]{2}[a-z]|\w_\w|\w::\w|`[^`]+`")
"""A part of `getUserName`, `HTMLParser`, `max_size` or `std::vector`; words in backticks."""


def dense_weight(model: str, query: str, languages: Sequence[str]) -> float:
    """The share of the dense half for a query that is in one of these languages."""
    weight = NAMING_WEIGHT if _NAME_OF_CODE.search(query) else DENSE_WEIGHT
    weights = [weight if reads(model, language) else UNREAD_WEIGHT for language in languages]
    return sum(weights) / len(weights)


@dataclass(frozen=True)
class Half:
    """The result of one half of a query: the best score of each page."""

    scores: Mapping[Any, float]
    floor: float = 0.0
    """The score of a page that it did not find."""


@dataclass(frozen=True)
class Fusion:
    """A score is the weighted sum of the heights of both halves above their floors, to a power."""

    bm25_floor: float
    dense_floor: float
    bm25_factor: float
    dense_factor: float
    power: float

    @classmethod
    def of(cls, bm25: Half, dense: Half, dense_weight: float = DENSE_WEIGHT) -> Self:
        """Measures each half in its standard deviation over the pages that either half found.

        So a few hits that stand out in one half count for more than many that hardly differ. The best of both
        halves is 1; if a half found nothing, the best of the other is its weight.
        """
        pages = {**bm25.scores, **dense.scores}  # ordered, so that the sums are the same each time
        power = EMPHASIS if dense_weight > 0.5 else 1.0
        factors, best, weight = [], 0.0, 0.0
        for half, share in ((bm25, 1 - dense_weight), (dense, dense_weight)):
            found = np.array([half.scores.get(page, half.floor) for page in pages]) - half.floor
            heights = np.maximum(found, 0.0) ** power
            height = float(heights.max(initial=0.0))
            deviation = float(np.std(heights)) if pages else 0.0
            is_flat = deviation <= MIN_DEVIATION * height
            factors.append(share / ((height if is_flat else deviation) or 1.0))
            if half.scores:
                best += factors[-1] * height
                weight += share
        scale = weight / best if best else 1.0
        return cls(bm25.floor, dense.floor, scale * factors[0], scale * factors[1], power)

    def score(self, bm25: float | None, dense: float | None) -> float:
        """From 0 to 1. None is a half that did not find it; what is below a floor counts as not found."""
        found = 0.0
        if bm25 is not None and bm25 > self.bm25_floor:
            found += self.bm25_factor * (bm25 - self.bm25_floor) ** self.power
        if dense is not None and dense > self.dense_floor:
            found += self.dense_factor * (dense - self.dense_floor) ** self.power
        return min(1.0, found)
