"""Search over all indexed pages: the best pages for a query."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crawlscope.indexing.embedders.port import TextEmbedder
from crawlscope.indexing.index.port import (
    ChunkId,
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    Hit,
    SearchIndex,
    SparseVector,
)
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
        payloads: dict[ChunkId, ChunkPayload] = {}
        pages = await self._find_pages(query, request.offset + request.limit, payloads)
        shown = [page[: 1 + MAX_PASSAGES] for page in pages[request.offset : request.offset + request.limit]]
        await self._fetch(payloads, [hit for page in shown for hit in page])
        found = [[(hit, payloads[hit.id]) for hit in page if hit.id in payloads] for page in shown]
        return SearchResponse(
            results=[_result(page, query.filters.crawl_id) for page in found if page],
            total=len(pages),
            mode=request.mode,
            took_ms=round((time.perf_counter() - started) * 1000, 3),
        )

    async def _fetch(self, payloads: dict[ChunkId, ChunkPayload], hits: Iterable[Hit]) -> None:
        if missing := [hit.id for hit in hits if hit.id not in payloads]:
            payloads |= await self._index.payloads(missing)

    async def _find_pages(
        self, query: _Query, wanted: int, payloads: dict[ChunkId, ChunkPayload]
    ) -> list[list[Hit]]:
        """The hits of each page, pages and hits best first; at least `wanted` pages if so many match."""
        depth = max(MIN_CANDIDATES, CANDIDATES_PER_PAGE * wanted)
        while True:
            halves = await self._index.query(query.dense, query.sparse, query.filters, depth)
            ranking = _rank(halves, query.mode)
            if query.phrase:
                await self._fetch(payloads, ranking[:WINDOW])
                ranking = _lifted(ranking, query.phrase, payloads)
            pages: defaultdict[str, list[Hit]] = defaultdict(list)
            for hit in ranking:
                pages[hit.url].append(hit)
            exhausted = max(len(halves.dense), len(halves.bm25)) < depth
            if len(pages) >= wanted or exhausted or depth >= MAX_CANDIDATES:
                return list(pages.values())
            depth = min(4 * depth, MAX_CANDIDATES)


def _rank(halves: Halves, mode: Mode) -> list[Hit]:
    """Best first."""
    urls = {hit.id: hit.url for hit in (*halves.dense, *halves.bm25)}
    if mode == "hybrid":
        scores = fuse(_scores(halves.bm25), _scores(halves.dense))
    else:
        found = _scores([*halves.dense, *halves.bm25])
        scores = sorted(found.items(), key=lambda scored: (-scored[1], scored[0]))
    return [Hit(one, score, urls[one]) for one, score in scores]


def _lifted(ranking: list[Hit], phrase: Phrase, payloads: Mapping[ChunkId, ChunkPayload]) -> list[Hit]:
    """The chunks with the phrase come first of all, with the best score.

    It is looked up only within the window that fusion scores, so that deeper candidates do not change the
    order.
    """
    near, far = ranking[:WINDOW], ranking[WINDOW:]
    lifted = {hit.id for hit in near if hit.id in payloads and phrase.is_in(payloads[hit.id]["text"])}
    verbatim = [hit._replace(score=ranking[0].score) for hit in near if hit.id in lifted]
    return [*verbatim, *(hit for hit in near if hit.id not in lifted), *far]


def _scores(hits: Iterable[Hit]) -> dict[ChunkId, float]:
    return {hit.id: hit.score for hit in hits}


def _result(page: list[tuple[Hit, ChunkPayload]], filtered_crawl: str | None) -> SearchResult:
    (best, payload), *others = page
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
            Passage(text=other["text"], chunk_index=other["chunk_index"], score=hit.score)
            for hit, other in others
        ],
    )
