"""Combines the BM25 and dense scores of one query into one ranking."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

BM25_WEIGHT = 0.6
DENSE_WEIGHT = 0.4
WINDOW = 100
"""Number of best hits of each half that are scored; the others follow in the order of their ranks."""


class Orderable(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


Id = TypeVar("Id", bound=Orderable)


def fuse(
    bm25: Mapping[Id, float],
    dense: Mapping[Id, float],
    *,
    bm25_weight: float = BM25_WEIGHT,
    dense_weight: float = DENSE_WEIGHT,
    window: int = WINDOW,
) -> list[tuple[Id, float]]:
    """Best first, each with a score from 0 to 1.

    Scores are stretched so that each half's best is 1 and the last of its window 0; a hit that a half did
    not find has 0 there. If BM25 does not fill its window, it found all chunks with any of the words: its 0
    is then the score 0 of all others. Equal scores are ordered by the better rank, then by id. More hits in
    the halves append to the ranking and never reorder it, so that pages of results fit together.
    """
    found_all = len(bm25) < window
    bm25_shares = normalise(bm25, window, floor=0.0 if found_all else None)
    dense_shares = normalise(dense, window)
    bm25_ranks, dense_ranks = ranks(bm25), ranks(dense)
    unfound = len(bm25) + len(dense)
    whole = bm25_weight + dense_weight
    scores = {
        one: (bm25_weight * bm25_shares.get(one, 0.0) + dense_weight * dense_shares.get(one, 0.0)) / whole
        for one in bm25.keys() | dense.keys()
    }

    def standing(one: Id) -> tuple[float, int, Id]:
        return -scores[one], min(bm25_ranks.get(one, unfound), dense_ranks.get(one, unfound)), one

    return [(one, min(scores[one], 1.0)) for one in sorted(scores, key=standing)]


def normalise(scores: Mapping[Id, float], window: int, floor: float | None = None) -> dict[Id, float]:
    """Min–max over the best `window` scores and the floor; all 1 if these are equal."""
    if not scores:
        return {}
    best_first = sorted(scores.values(), reverse=True)[:window]
    best, last = best_first[0], best_first[-1]
    if floor is not None:
        last = min(last, floor)
    if best == last:
        return {one: float(score == best) for one, score in scores.items()}
    return {one: max(0.0, (score - last) / (best - last)) for one, score in scores.items()}


def ranks(scores: Mapping[Id, float]) -> dict[Id, int]:
    """The number of better scores; equal scores share a rank."""
    rank_of: dict[float, int] = {}
    for rank, score in enumerate(sorted(scores.values(), reverse=True)):
        rank_of.setdefault(score, rank)
    return {one: rank_of[score] for one, score in scores.items()}
