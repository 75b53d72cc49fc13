"""Search over all indexed pages: the best pages for a query."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from crawlscope.indexing.embedders.port import TextEmbedder
from crawlscope.indexing.index.port import Filters, Floats, Halves, Hit, SearchIndex, SparseVector
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.fusion import WINDOW, fuse
from crawlscope.search.phrase import Phrase
from crawlscope.search.schemas import Mode, Passage, SearchRequest, SearchResponse, SearchResult

MIN_CANDIDATES = WINDOW
MAX_CANDIDATES = 6_000
CANDIDATES_PER_PAGE = 3
"""Chunks to ask of each half for each page wanted; more are asked for if one page has many of them."""
MAX_PASSAGES = 4


@dataclass(frozen=True)
class _Ranked:
    hit: Hit
    score: float


@dataclass(frozen=True)
class _Query:
    mode: Mode
    dense: Floats | None
    sparse: SparseVector | None
    phrase: Phrase | None
    filters: Filters


class SearchService:
    def __init__(self, index: SearchIndex, embedder: TextEmbedder, bm25: Bm25Encoder) -> None:
        self._index = index
        self._embedder = embedder
        self._bm25 = bm25

    async def search(self, request: SearchRequest) -> SearchResponse:
        """Raises `IndexUnavailable`, and `EmbedderUnavailable` in any mode but `keyword`."""
        started = time.perf_counter()
        query = _Query(
            request.mode,
            dense=None if request.mode == "keyword" else (await self._embedder.embed([request.query]))[0],
            sparse=None if request.mode == "semantic" else self._bm25.encode_query(request.query),
            phrase=None if request.mode == "semantic" else Phrase.of(request.query),
            filters=Filters(**request.filters.model_dump()) if request.filters else Filters(),
        )
        pages = await self._find_pages(query, request.offset + request.limit)
        shown = pages[request.offset : request.offset + request.limit]
        return SearchResponse(
            results=[_result(page, query.filters.crawl_id) for page in shown],
            total=len(pages),
            mode=request.mode,
            took_ms=round((time.perf_counter() - started) * 1000, 3),
        )

    async def _find_pages(self, query: _Query, wanted: int) -> list[list[_Ranked]]:
        """The chunks of each page, pages and chunks best first; at least `wanted` pages if so many match."""
        depth = max(MIN_CANDIDATES, CANDIDATES_PER_PAGE * wanted)
        while True:
            halves = await self._index.query(query.dense, query.sparse, query.filters, depth)
            pages: defaultdict[str, list[_Ranked]] = defaultdict(list)
            for ranked in _rank(halves, query.mode, query.phrase):
                pages[ranked.hit.payload["url"]].append(ranked)
            exhausted = max(len(halves.dense), len(halves.bm25)) < depth
            if len(pages) >= wanted or exhausted or depth >= MAX_CANDIDATES:
                return list(pages.values())
            depth = min(4 * depth, MAX_CANDIDATES)


def _rank(halves: Halves, mode: Mode, phrase: Phrase | None) -> list[_Ranked]:
    """Best first. The chunks with the phrase come first of all, with the best score.

    The phrase is looked up within the window that fusion scores only, so that deeper candidates do not
    change the order.
    """
    hits = {hit.id: hit for hit in (*halves.dense, *halves.bm25)}
    if mode == "hybrid":
        scores = fuse(_scores(halves.bm25), _scores(halves.dense))
    else:
        scores = sorted(_scores(hits.values()).items(), key=lambda scored: (-scored[1], scored[0]))
    ranking = [_Ranked(hits[one], score) for one, score in scores]
    if phrase is None or not ranking:
        return ranking
    best, near, far = ranking[0].score, ranking[:WINDOW], ranking[WINDOW:]
    verbatim = [ranked for ranked in near if phrase.is_in(ranked.hit.payload["text"])]
    lifted = {ranked.hit.id for ranked in verbatim}
    others = [ranked for ranked in near if ranked.hit.id not in lifted]
    return [*(_Ranked(ranked.hit, best) for ranked in verbatim), *others, *far]


def _scores(hits: Iterable[Hit]) -> dict[UUID, float]:
    return {hit.id: hit.score for hit in hits}


def _result(page: list[_Ranked], filtered_crawl: str | None) -> SearchResult:
    best, *others = page
    payload = best.hit.payload
    crawl_ids = payload["crawl_ids"]
    return SearchResult(
        url=payload["url"],
        title=payload["title"],
        text=payload["text"],
        score=best.score,
        crawl_id=filtered_crawl or (crawl_ids[-1] if crawl_ids else None),
        chunk_index=payload["chunk_index"],
        crawl_ids=crawl_ids,
        domain=payload["domain"],
        language=payload["language"],
        passages=[
            Passage(
                text=other.hit.payload["text"],
                chunk_index=other.hit.payload["chunk_index"],
                score=other.score,
            )
            for other in others[:MAX_PASSAGES]
        ],
    )
