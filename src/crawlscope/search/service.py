"""Search over everything indexed: one query, its best pages."""

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

FEWEST_CANDIDATES = WINDOW
MOST_CANDIDATES = 6_000
CANDIDATES_PER_PAGE = 3
"""Chunks asked of each half for each page wanted; more are fetched when one page has many of them."""
MOST_PASSAGES = 4


@dataclass(frozen=True)
class _Ranked:
    hit: Hit
    score: float


@dataclass(frozen=True)
class _Question:
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
        question = await self._encode(request)
        pages = await self._find_pages(question, request.offset + request.limit)
        shown = pages[request.offset : request.offset + request.limit]
        return SearchResponse(
            results=[_result(page, question.filters.crawl_id) for page in shown],
            total=len(pages),
            mode=request.mode,
            took_ms=round((time.perf_counter() - started) * 1000, 3),
        )

    async def _encode(self, request: SearchRequest) -> _Question:
        filters = Filters(**request.filters.model_dump()) if request.filters else Filters()
        dense = None if request.mode == "keyword" else (await self._embedder.embed([request.query]))[0]
        sparse = None if request.mode == "semantic" else self._bm25.encode_query(request.query)
        phrase = None if request.mode == "semantic" else Phrase.of(request.query)
        return _Question(request.mode, dense, sparse, phrase, filters)

    async def _find_pages(self, question: _Question, wanted: int) -> list[list[_Ranked]]:
        depth = max(FEWEST_CANDIDATES, CANDIDATES_PER_PAGE * wanted)
        while True:
            halves = await self._index.query(question.dense, question.sparse, question.filters, depth)
            pages = _by_page(_lift(_rank(halves, question.mode), question.phrase))
            exhausted = max(len(halves.dense), len(halves.bm25)) < depth
            if len(pages) >= wanted or exhausted or depth >= MOST_CANDIDATES:
                return pages
            depth = min(4 * depth, MOST_CANDIDATES)


def _rank(halves: Halves, mode: Mode) -> list[_Ranked]:
    hits = {hit.id: hit for hit in (*halves.dense, *halves.bm25)}
    if mode == "hybrid":
        ranking = fuse(_scores(halves.bm25), _scores(halves.dense))
    else:
        ranking = sorted(_scores(hits.values()).items(), key=lambda scored: (-scored[1], scored[0]))
    return [_Ranked(hits[one], score) for one, score in ranking]


def _lift(ranking: list[_Ranked], phrase: Phrase | None) -> list[_Ranked]:
    """Puts first what has the phrase word for word, with the best score there is.

    Looks at the window that fusion scores and no further, so that deeper candidates change no order.
    """
    if phrase is None or not ranking:
        return ranking
    best = ranking[0].score
    near, far = ranking[:WINDOW], ranking[WINDOW:]
    verbatim = [ranked for ranked in near if phrase.stands_in(ranked.hit.payload["text"])]
    lifted = {ranked.hit.id for ranked in verbatim}
    others = [ranked for ranked in near if ranked.hit.id not in lifted]
    return [*(_Ranked(ranked.hit, best) for ranked in verbatim), *others, *far]


def _scores(hits: Iterable[Hit]) -> dict[UUID, float]:
    return {hit.id: hit.score for hit in hits}


def _by_page(ranking: Iterable[_Ranked]) -> list[list[_Ranked]]:
    """Pages in the order of their best chunk."""
    pages: defaultdict[str, list[_Ranked]] = defaultdict(list)
    for ranked in ranking:
        pages[ranked.hit.payload["url"]].append(ranked)
    return list(pages.values())


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
        passages=[_passage(other) for other in others[:MOST_PASSAGES]],
    )


def _passage(ranked: _Ranked) -> Passage:
    payload = ranked.hit.payload
    return Passage(text=payload["text"], chunk_index=payload["chunk_index"], score=ranked.score)
