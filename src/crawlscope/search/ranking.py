"""Ranks pages by the chunks that the index found of them in each half of a query."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from math import inf
from operator import neg
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
    hits: list[Hit]
    """The hits of the page, best first."""

    @property
    def best(self) -> Hit:
        return self.hits[0]


class Found:
    """The pages that one half found, best first."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self.hits = hits
        self.places: defaultdict[DocumentKey, list[int]] = defaultdict(list)
        """The places of the hits of each page."""
        for place, (_, _, document) in enumerate(hits):
            self.places[document].append(place)
        self.first = {document: places[0] for document, places in self.places.items()}
        """The place of the best chunk of each page."""
        self.scores = {document: hits[place].score for document, place in self.first.items()}
        """The score of the best chunk of each page."""

    @cached_property
    def ranks(self) -> dict[DocumentKey, int]:
        return {document: rank for rank, document in enumerate(self.places, 1)}

    def standing(self, document: DocumentKey) -> Standing | None:
        if document not in self.scores:
            return None
        return Standing(self.ranks[document], [self.hits[place] for place in self.places[document]])

    def chunks(self, document: DocumentKey) -> dict[ChunkId, float]:
        """The score of each chunk of a page."""
        places = self.places[document] if document in self.first else ()
        return {hit.id: hit.score for hit in map(self.hits.__getitem__, places)}


@dataclass(frozen=True)
class Ranking:
    bm25: Found
    dense: Found
    score: Score
    _chunks: dict[tuple[DocumentKey, frozenset[ChunkId]], list[Hit]] = field(default_factory=dict)

    def chunks(self, document: DocumentKey, first: frozenset[ChunkId]) -> list[Hit]:
        """All chunks that were found of a page, best first, each with its score in both halves together.

        Those of `first` come before all others.
        """
        known = self._chunks.get((document, first))
        if known is None:
            bm25, dense = self.bm25.chunks(document), self.dense.chunks(document)
            scored = sorted((-self.score(bm25.get(one), dense.get(one)), one) for one in bm25 | dense)
            known = [Hit(one, -negative, document) for negative, one in scored]
            if first:
                known.sort(key=lambda hit: hit.id not in first)
            self._chunks[document, first] = known
        return known


class RankedPage(NamedTuple):
    """There are hundreds of them, most of which are only counted: it looks up what it shows."""

    document: DocumentKey
    score: float
    ranking: Ranking
    rerank_score: float | None = None
    first: frozenset[ChunkId] = frozenset()
    """Chunks to show before all others."""

    @property
    def bm25(self) -> Standing | None:
        return self.ranking.bm25.standing(self.document)

    @property
    def dense(self) -> Standing | None:
        return self.ranking.dense.standing(self.document)

    @property
    def chunks(self) -> list[Hit]:
        return self.ranking.chunks(self.document, self.first)


def rank_pages(halves: Halves, mode: Mode, dense_weight: float = DENSE_WEIGHT) -> list[RankedPage]:
    """Best first. In each half, a page has the score of its best chunk there.

    Equal scores are in the order of their hits. More hits append pages and never reorder them, so that pages
    of results fit together.
    """
    bm25, dense = Found(halves.bm25), Found(halves.dense)

    def better(bm25: float | None, dense: float | None) -> float:
        """The score of the only half that was asked."""
        return max(score for score in (bm25, dense) if score is not None)

    score: Score = better
    if mode == "hybrid":
        score = Fusion.of(_half(bm25), _half(dense), dense_weight).score
    ranking, documents = Ranking(bm25, dense, score), [*(bm25.scores | dense.scores)]
    scores = map(score, map(bm25.scores.get, documents), map(dense.scores.get, documents))
    behind = repeat(len(halves.bm25) + len(halves.dense))
    places = map(min, map(bm25.first.get, documents, behind), map(dense.first.get, documents, behind))
    ranked = sorted(zip(map(neg, scores), places, documents, strict=True))
    return [RankedPage(document, -negative, ranking) for negative, _, document in ranked]


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
    documents, ids = {hit.document for hit in chunks}, frozenset(hit.id for hit in chunks)
    lifted, others = list[RankedPage](), list[RankedPage]()
    for page in pages:
        if page.document in documents:
            lifted.append(page._replace(score=best, first=page.first | ids))
        else:
            others.append(page)
    return [*lifted, *others]


def _half(found: Found) -> Half:
    """If these are all that have a score, the missing ones have none."""
    hits, near = found.hits, found.scores
    if len(hits) > WINDOW:
        near = {document: near[document] for document, place in found.first.items() if place < WINDOW}
    last = hits[:WINDOW][-1].score if hits else 0.0
    return Half(near, min(0.0, last) if len(hits) < WINDOW else last)
