"""Ranks pages by the chunks that the index found of them in each half of a query."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from crawlscope.indexing.index.port import ChunkId, DocumentKey, Halves, Hit
from crawlscope.search.fusion import DENSE_WEIGHT, Fusion, Half
from crawlscope.search.schemas import Mode

WINDOW = 200
"""Number of best chunks of each half that are scored; pages that are found further down follow in the order
of their hits.
"""


@dataclass(frozen=True)
class Standing:
    """Where one half has a page: by its best chunk there, among all pages, from 1 on."""

    rank: int
    best: Hit


@dataclass(frozen=True)
class RankedPage:
    document: DocumentKey
    score: float
    place: int
    """Of its first hit in any half."""
    bm25: Standing | None
    dense: Standing | None
    chunks: list[Hit] = field(default_factory=list)
    """All that were found of it, best first, each with its score in both halves together."""


def rank_pages(halves: Halves, mode: Mode, dense_weight: float = DENSE_WEIGHT) -> list[RankedPage]:
    """Best first. In each half, a page has the score of its best chunk there.

    Equal scores are in the order of their hits. More hits append pages and never reorder them, so that pages
    of results fit together.
    """
    score = _better
    if mode == "hybrid":
        score = Fusion.of(_half(halves.bm25), _half(halves.dense), dense_weight).score
    sides = (halves.bm25, halves.dense)
    places = _places(sides)
    standings = [_standings(hits) for hits in sides]
    pages = dict[DocumentKey, RankedPage]()
    for document in standings[0].keys() | standings[1].keys():
        bm25, dense = (each.get(document) for each in standings)
        found = score(*(each.best.score if each else None for each in (bm25, dense)))
        place = min(places[each.best.id] for each in (bm25, dense) if each)
        pages[document] = RankedPage(document, found, place, bm25, dense)
    scores = [{hit.id: hit.score for hit in hits} for hits in sides]
    for hit in {hit.id: hit for hits in sides for hit in hits}.values():
        found = score(*(each.get(hit.id) for each in scores))
        pages[hit.document].chunks.append(hit._replace(score=found))
    for page in pages.values():
        page.chunks.sort(key=lambda hit: (-hit.score, places[hit.id], hit.id))
    return sorted(pages.values(), key=lambda page: (-page.score, page.place, page.document))


def lift_pages(pages: Sequence[RankedPage], chunks: Collection[ChunkId]) -> list[RankedPage]:
    """The pages that have one of these chunks come first, with the best score, and show it first."""
    lifted, others = list[RankedPage](), list[RankedPage]()
    for page in pages:
        first = [hit for hit in page.chunks if hit.id in chunks]
        rest = [hit for hit in page.chunks if hit.id not in chunks]
        if first:
            lifted.append(replace(page, score=pages[0].score, chunks=[*first, *rest]))
        else:
            others.append(page)
    return [*lifted, *others]


def _half(hits: Sequence[Hit]) -> Half:
    """If these are all that have a score, what is missing has none."""
    near = hits[:WINDOW]
    scores = dict[DocumentKey, float]()
    for hit in near:
        scores.setdefault(hit.document, hit.score)
    last = near[-1].score if near else 0.0
    return Half(scores, min(0.0, last) if len(hits) < WINDOW else last)


def _standings(hits: Sequence[Hit]) -> dict[DocumentKey, Standing]:
    standings = dict[DocumentKey, Standing]()
    for hit in hits:
        if hit.document not in standings:
            standings[hit.document] = Standing(len(standings) + 1, hit)
    return standings


def _places(sides: Iterable[Sequence[Hit]]) -> dict[ChunkId, int]:
    """The best place of each chunk."""
    places = dict[ChunkId, int]()
    for hits in sides:
        for place, hit in enumerate(hits):
            places[hit.id] = min(place, places.get(hit.id, place))
    return places


def _better(bm25: float | None, dense: float | None) -> float:
    """The score of the only half that was asked."""
    return max(score for score in (bm25, dense) if score is not None)
