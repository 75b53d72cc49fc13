"""Search over all indexed pages: the best pages for a query."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from crawlscope.indexing.corpus import Corpus
from crawlscope.indexing.embedders.port import TextEmbedder
from crawlscope.indexing.index.port import (
    ChunkId,
    ChunkPayload,
    Filters,
    Floats,
    Hit,
    SearchIndex,
    SparseVector,
)
from crawlscope.indexing.language import ENGLISH
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.phrase import Phrase
from crawlscope.search.ranking import WINDOW, RankedPage, lift_pages, rank_pages
from crawlscope.search.ranking import Standing as Ranked
from crawlscope.search.schemas import Mode, Passage, SearchRequest, SearchResponse, SearchResult, Standing

MIN_CANDIDATES = WINDOW
MAX_CANDIDATES = 6_000
CANDIDATES_PER_PAGE = 3
"""Chunks to ask of each half for each page wanted; more are asked for if one page has many of them."""
MAX_PASSAGES = 4
PAGES_COMPARED = 20
"""Best pages whose title is compared with the query."""
CHUNKS_COMPARED = 100
"""Best chunks by keyword whose text is compared with a long query."""

Payloads = dict[ChunkId, ChunkPayload]


@dataclass(frozen=True)
class _Query:
    mode: Mode
    dense: Floats | None
    sparse: SparseVector | None
    words: Phrase
    filters: Filters


class SearchService:
    def __init__(
        self, index: SearchIndex, embedder: TextEmbedder, bm25: Bm25Encoder, corpus: Corpus | None = None
    ) -> None:
        """Without a corpus, every query is in English."""
        self._index = index
        self._embedder = embedder
        self._bm25 = bm25
        self._corpus = corpus

    async def search(self, request: SearchRequest) -> SearchResponse:
        """Raises `IndexUnavailable`, and `EmbedderUnavailable` in any mode but `keyword`."""
        started = time.perf_counter()
        languages = await self._corpus.languages_of(request.query) if self._corpus else [ENGLISH]
        query = _Query(
            request.mode,
            dense=None if request.mode == "keyword" else (await self._embedder.embed([request.query]))[0],
            sparse=None if request.mode == "semantic" else self._bm25.encode_query(request.query, languages),
            words=Phrase.of(request.query),
            filters=Filters(**request.filters.model_dump()) if request.filters else Filters(),
        )
        payloads = Payloads()
        pages = await self._find_pages(query, request.offset + request.limit, payloads)
        shown = pages[request.offset : request.offset + request.limit]
        await self._fetch(payloads, [one for page in shown for one in _shown_chunks(page)])
        return SearchResponse(
            results=[
                _result(page, payloads, query.filters.crawl_id)
                for page in shown
                if page.chunks[0].id in payloads
            ],
            total=len(pages),
            mode=request.mode,
            took_ms=round((time.perf_counter() - started) * 1000, 3),
        )

    async def _fetch(self, payloads: Payloads, ids: Iterable[ChunkId]) -> None:
        if missing := [one for one in dict.fromkeys(ids) if one not in payloads]:
            payloads |= await self._index.payloads(missing)

    async def _find_pages(self, query: _Query, wanted: int, payloads: Payloads) -> list[RankedPage]:
        """Best first; at least `wanted` pages if so many match."""
        depth = max(MIN_CANDIDATES, CANDIDATES_PER_PAGE * wanted)
        while True:
            halves = await self._index.query(query.dense, query.sparse, query.filters, depth)
            pages = rank_pages(halves, query.mode)
            exhausted = max(len(halves.dense), len(halves.bm25)) < depth
            if len(pages) >= wanted or exhausted or depth >= MAX_CANDIDATES:
                break
            depth = min(4 * depth, MAX_CANDIDATES)
        if query.mode == "semantic" or not pages:
            return pages
        return await self._lift_named(query.words, pages, halves.bm25[:CHUNKS_COMPARED], payloads)

    async def _lift_named(
        self, words: Phrase, pages: list[RankedPage], by_keyword: Sequence[Hit], payloads: Payloads
    ) -> list[RankedPage]:
        """First the pages with the query as their title, then those that contain a long query word for word.

        Only the best are looked at, so that deeper candidates do not change the order.
        """
        titled = [page.chunks[0].id for page in pages[:PAGES_COMPARED]]
        verbatim = [hit.id for hit in by_keyword] if words.is_long else []
        await self._fetch(payloads, [*titled, *verbatim])
        known = payloads.keys()
        named = {one for one in titled if one in known and words.is_title(payloads[one]["title"])}
        quoting = {one for one in verbatim if one in known and words.is_in(payloads[one]["text"])}
        return lift_pages(lift_pages(pages, quoting), named)


def _shown_chunks(page: RankedPage) -> Iterator[ChunkId]:
    """The chunks of a result: the best ones of the page, and the best one in each half."""
    yield from (hit.id for hit in page.chunks[: 1 + MAX_PASSAGES])
    yield from (half.best.id for half in (page.bm25, page.dense) if half)


def _result(page: RankedPage, payloads: Payloads, filtered_crawl: str | None) -> SearchResult:
    best, *others = (hit for hit in page.chunks[: 1 + MAX_PASSAGES] if hit.id in payloads)
    payload = payloads[best.id]
    crawl_ids = payload["crawl_ids"]

    def standing(half: Ranked | None) -> Standing | None:
        if half is None or half.best.id not in payloads:
            return None
        found = payloads[half.best.id]
        return Standing(
            rank=half.rank, score=half.best.score, chunk_index=found["chunk_index"], text=found["text"]
        )

    return SearchResult(
        url=payload["url"],
        title=payload["title"],
        text=payload["text"],
        score=page.score,
        crawl_id=filtered_crawl or (crawl_ids[-1] if crawl_ids else None),
        chunk_index=payload["chunk_index"],
        crawl_ids=crawl_ids,
        domain=payload["domain"],
        language=payload["language"],
        passages=[
            Passage(
                text=payloads[hit.id]["text"],
                chunk_index=payloads[hit.id]["chunk_index"],
                score=hit.score,
            )
            for hit in others
        ],
        keyword=standing(page.bm25),
        semantic=standing(page.dense),
    )
