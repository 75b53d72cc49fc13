"""Ranks pages by the chunks that the index found of them in each half of a query."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import NamedTuple, TypeAlias

import numpy as np

from crawlscope.indexing.index.port import ChunkId, DocumentKey, Halves, Hit
from crawlscope.search.fusion import DENSE_WEIGHT, Fusion, Half
from crawlscope.search.schemas import Mode

WINDOW = 200
"""Number of best chunks of each half that are scored; pages that are found further down follow in the order
of their hits.
"""
PART_SHARE = 0.35
"""A share of the surplus that the best part of a chunk has over the whole chunk in similarity to the query.
"""

Score: TypeAlias = Callable[[float | None, float | None], float]
"""Makes a score of a BM25 score and a dense score, each None if that half did not find the page."""


class Standing(NamedTuple):
    """The place of a page in one half: by its best chunk there, among all pages, from 1 on."""

    rank: int
    place: int
    """The place of that chunk among all hits, from 0 on."""
    hits: list[Hit]
    """The hits of the page, best first."""

    @property
    def best(self) -> Hit:
        return self.hits[0]


@dataclass(eq=False)
class RankedPage:
    """Not frozen, which would take most of the time of a search's ranking: there are hundreds of them."""

    document: DocumentKey
    score: float
    bm25: Standing | None
    dense: Standing | None
    score_of: Score
    rerank_score: float | None = None
    first: Collection[ChunkId] = ()
    """Chunks to show before all others."""

    @cached_property
    def chunks(self) -> list[Hit]:
        """All that were found of it, best first, each with its score in both halves together."""
        bm25, dense = _scores(self.bm25), _scores(self.dense)
        hits = [
            Hit(one, self.score_of(bm25.get(one), dense.get(one)), self.document)
            for one in bm25.keys() | dense.keys()
        ]
        return sorted(hits, key=lambda hit: (hit.id not in self.first, -hit.score, hit.id))


def rank_pages(halves: Halves, mode: Mode, dense_weight: float = DENSE_WEIGHT) -> list[RankedPage]:
    """Best first. In each half, a page has the score of its best chunk there.

    Equal scores are in the order of their hits. More hits append pages and never reorder them, so that pages
    of results fit together.
    """
    bm25, dense = _standings(halves.bm25), _standings(halves.dense)

    def better(bm25: float | None, dense: float | None) -> float:
        """The score of the only half that was asked."""
        return max(score for score in (bm25, dense) if score is not None)

    score: Score = better
    if mode == "hybrid":
        score = Fusion.of(_half(halves.bm25, bm25), _half(halves.dense, dense), dense_weight).score
    ranked = []
    for document in bm25.keys() | dense.keys():
        by_bm25, by_dense = bm25.get(document), dense.get(document)
        found = score(by_bm25 and by_bm25.best.score, by_dense and by_dense.best.score)
        place = min([half.place for half in (by_bm25, by_dense) if half])
        ranked.append((-found, place, document, RankedPage(document, found, by_bm25, by_dense, score)))
    return [page for *_, page in sorted(ranked)]  # no two have the same document


def raise_by_parts(hits: Sequence[Hit], surpluses: Mapping[ChunkId, float]) -> list[Hit]:
    """The hits by meaning, each with a share of its surplus: a passage may have one sentence that answers.

    The surplus counts from the median, so that hits without one keep their place among the others. None falls
    below the window: more hits would pass it.
    """
    if not surpluses:
        return [*hits]
    middle = float(np.median([*surpluses.values()]))
    lowest = hits[WINDOW - 1].score if len(hits) >= WINDOW else -inf
    raised = [
        hit._replace(score=max(lowest, hit.score + PART_SHARE * (surpluses.get(hit.id, middle) - middle)))
        for hit in hits[:WINDOW]
    ]
    return [*sorted(raised, key=lambda hit: -hit.score), *hits[WINDOW:]]


def lift_pages(pages: Sequence[RankedPage], chunks: Collection[Hit]) -> list[RankedPage]:
    """The pages that have one of these chunks come first, with the best score, and show it first."""
    if not chunks:
        return list(pages)
    best = max(page.score for page in pages)
    documents, ids = {hit.document for hit in chunks}, {hit.id for hit in chunks}
    lifted, others = list[RankedPage](), list[RankedPage]()
    for page in pages:
        if page.document in documents:
            lifted.append(replace(page, score=best, first={*page.first, *ids}))
        else:
            others.append(page)
    return [*lifted, *others]


def _standings(hits: Iterable[Hit]) -> dict[DocumentKey, Standing]:
    standings = dict[DocumentKey, Standing]()
    for place, hit in enumerate(hits):
        if standing := standings.get(hit.document):
            standing.hits.append(hit)
        else:
            standings[hit.document] = Standing(len(standings) + 1, place, [hit])
    return standings


def _scores(standing: Standing | None) -> dict[ChunkId, float]:
    return {hit.id: hit.score for hit in standing.hits} if standing else {}


def _half(hits: Sequence[Hit], standings: dict[DocumentKey, Standing]) -> Half:
    """If these are all that have a score, the missing ones have none."""
    near = {
        document: standing.best.score for document, standing in standings.items() if standing.place < WINDOW
    }
    last = hits[:WINDOW][-1].score if hits else 0.0
    return Half(near, min(0.0, last) if len(hits) < WINDOW else last)
