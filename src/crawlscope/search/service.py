"""Search over all indexed pages: the best pages for a query."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from crawlscope.indexing.corpus import Corpus
from crawlscope.indexing.embedders.port import TextEmbedder
from crawlscope.indexing.index.port import (
    ChunkId,
    Filters,
    Floats,
    Hit,
    SearchIndex,
    SparseVector,
)
from crawlscope.indexing.language import ENGLISH
from crawlscope.indexing.parts import surpluses
from crawlscope.indexing.phrase import Phrase
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.fusion import dense_weight
from crawlscope.search.query import ParsedQuery
from crawlscope.search.query_words import Encode, QueryWords
from crawlscope.search.ranking import WINDOW, RankedPage, lift_pages, raise_by_parts, rank_pages
from crawlscope.search.reranker import RERANKED_PAGES, Reranker
from crawlscope.search.results import Payloads, chunks_shown, make_results
from crawlscope.search.schemas import Mode, SearchRequest, SearchResponse

MIN_CANDIDATES = WINDOW
MAX_CANDIDATES = 6_000
CANDIDATES_PER_PAGE = 3
"""Chunks to ask of each half for each page wanted; more are asked for if one page has many of them."""
PAGES_COMPARED = 20
"""Best pages whose title is compared with the query."""
PARTS_COMPARED = 50
"""Best chunks by meaning whose parts are compared with the query."""
CHUNKS_COMPARED = 100
"""Best chunks by keyword whose text is compared with a distinctive query."""
MAX_VECTORS = 1_000
"""Queries whose vectors are remembered: the next pages of results need the same one again."""
MAX_WORDS = 4_000
"""Queries and words whose terms are remembered: the same words are like those of many queries."""
MAX_CHUNKS_COMPARED = 1_000
"""Best chunks by keyword whose text is compared with a phrase in quotation marks."""


@dataclass(frozen=True)
class _Query:
    mode: Mode
    dense: Floats | None
    sparse: SparseVector | None
    words: Phrase
    filters: Filters
    dense_weight: float


class SearchService:
    def __init__(
        self,
        index: SearchIndex,
        embedder: TextEmbedder,
        bm25: Bm25Encoder,
        corpus: Corpus | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """Without a corpus, every query is in English, and chunks may have parts."""
        self._index = index
        self._embedder = embedder
        self._encode = lru_cache(MAX_WORDS)(bm25.encode_query)
        self._corpus = corpus
        self._model = corpus.model if corpus else ""
        self._has_parts = corpus is None or corpus.has_parts
        self._reranker = reranker
        self._vectors: dict[str, Floats] = {}
        """By query, the last used one at the end."""

    async def search(self, request: SearchRequest) -> SearchResponse:
        """Raises `IndexUnavailable`, and `EmbedderUnavailable` in any mode but `keyword`."""
        started = time.perf_counter()
        parsed = ParsedQuery.of(request.query)
        payloads = Payloads()
        languages = await self._corpus.languages_of(parsed.text) if self._corpus else [ENGLISH]
        encode = partial(self._encode, languages=tuple(languages))
        corrected = await self._correct(parsed.text, encode)
        parsed = replace(parsed, text=corrected or parsed.text)
        filters = Filters(**request.filters.model_dump()) if request.filters else Filters()
        filters, phrases = await self._narrowed(filters, parsed, encode, payloads)
        query = _Query(
            request.mode,
            dense=None if request.mode == "keyword" else await self._vector_of(parsed.text),
            sparse=None if request.mode == "semantic" else encode(parsed.text),
            words=Phrase.of(parsed.text),
            filters=filters,
            dense_weight=dense_weight(self._model, parsed.text, languages),
        )
        part = slice(request.offset, request.offset + request.limit)
        reranker = None if request.mode == "keyword" or part.start >= RERANKED_PAGES else self._reranker
        wanted = max(part.stop, RERANKED_PAGES if reranker else 0)
        pages, by_keyword = await self._find_pages(query, wanted, payloads)
        if reranker:
            pages = await self._reranked(reranker, parsed.text, pages, payloads)
        if query.mode != "semantic":
            pages = await self._lift_named(query.words, pages, by_keyword, payloads, part)
        shown = pages[part]
        await self._fetch(payloads, chunks_shown(shown))
        words = QueryWords(parsed.text, encode)
        return SearchResponse(
            results=make_results(shown, payloads, words, filters.crawl_id),
            total=len(pages),
            mode=request.mode,
            took_ms=round((time.perf_counter() - started) * 1000, 3),
            phrases=phrases,
            excluded=list(parsed.excluded),
            corrected_query=corrected,
        )

    async def _vector_of(self, text: str) -> Floats:
        vector = self._vectors.pop(text, None)
        if vector is None:
            [vector] = await self._embedder.embed([text])
        self._vectors[text] = vector
        if len(self._vectors) > MAX_VECTORS:
            del self._vectors[next(iter(self._vectors))]
        return vector

    async def _correct(self, text: str, encode: Encode) -> str | None:
        """None if every word is known, or no known word is similar."""

        async def is_indexed(word: str) -> bool:
            sparse = encode(word)
            if not len(sparse.indices):
                return True
            return bool((await self._index.query(None, sparse, Filters(), 1)).bm25)

        corrected = await self._corpus.correct(text, is_indexed) if self._corpus else text
        return corrected if corrected != text else None

    async def _narrowed(
        self, filters: Filters, parsed: ParsedQuery, encode: Encode, payloads: Payloads
    ) -> tuple[Filters, list[str]]:
        """Narrows the filters to documents that have a chunk with each phrase and none with an exclusion;
        also returns the phrases that any document has. A question may quote its subject in other words than
        the answer."""
        phrases = []
        for words in parsed.required:
            if found := await self._containing(words, filters, encode, payloads):
                filters = replace(filters, urls=sorted(found))
                phrases.append(words)
        excluded = set[str]()
        for words in parsed.excluded:
            excluded |= await self._containing(words, filters, encode, payloads)
        return replace(filters, other_than=sorted(excluded)), phrases

    async def _containing(self, words: str, filters: Filters, encode: Encode, payloads: Payloads) -> set[str]:
        """The documents that contain these words in this order, among the chunks with most of them.

        None of them for stop words only, which the index does not know.
        """
        sparse, phrase = encode(words), Phrase.of(words)
        if not len(sparse.indices):
            return set()
        hits = (await self._index.query(None, sparse, filters, MAX_CHUNKS_COMPARED)).bm25
        found = [hit.id for hit in await self._quoting(phrase, hits, ("text", "title"))]
        await self._fetch(payloads, found)
        return {payloads[one]["url"] for one in found if one in payloads}

    async def _quoting(self, phrase: Phrase, hits: Sequence[Hit], fields: Sequence[str]) -> list[Hit]:
        """Those with the phrase in one of the fields."""
        if not hits:
            return []
        found = await self._index.containing(phrase, [hit.id for hit in hits], fields)
        return [hit for hit in hits if hit.id in found]

    async def _fetch(self, payloads: Payloads, ids: Iterable[ChunkId]) -> None:
        if missing := [one for one in dict.fromkeys(ids) if one not in payloads]:
            payloads |= await self._index.payloads(missing)

    async def _find_pages(
        self, query: _Query, wanted: int, payloads: Payloads
    ) -> tuple[list[RankedPage], list[Hit]]:
        """The pages, best first, at least `wanted` if so many match; and the hits by keyword."""
        depth = max(MIN_CANDIDATES, CANDIDATES_PER_PAGE * wanted)
        while True:
            halves = await self._index.query(query.dense, query.sparse, query.filters, depth)
            if query.dense is not None and self._has_parts:
                near = [hit.id for hit in halves.dense[:PARTS_COMPARED]]
                await self._fetch(payloads, near)
                parts = {one: payloads[one].get("parts", "") for one in near if one in payloads}
                gains = surpluses(np.asarray(query.dense, np.float32), parts)
                halves = replace(halves, dense=raise_by_parts(halves.dense, gains))
            pages = rank_pages(halves, query.mode, query.dense_weight)
            exhausted = max(len(halves.dense), len(halves.bm25)) < depth
            if len(pages) >= wanted or exhausted or depth >= MAX_CANDIDATES:
                return pages, halves.bm25
            depth = min(4 * depth, MAX_CANDIDATES)

    async def _reranked(
        self, reranker: Reranker, text: str, pages: list[RankedPage], payloads: Payloads
    ) -> list[RankedPage]:
        """The first pages ordered by the reranker; all as they are if that fails."""
        await self._fetch(payloads, [page.chunks[0].id for page in pages[:RERANKED_PAGES]])
        near = [page for page in pages[:RERANKED_PAGES] if page.chunks[0].id in payloads]
        chunks = [payloads[page.chunks[0].id] for page in near]
        passages = [f"{chunk['title']}\n\n{chunk['text']}" for chunk in chunks]
        scores = await reranker.scores(text, passages) if near else None
        if scores is None:
            return pages
        scored = [page._replace(rerank_score=score) for page, score in zip(near, scores, strict=True)]
        scored.sort(key=lambda page: -(page.rerank_score or 0.0))
        return [*scored, *pages[RERANKED_PAGES:]]

    async def _lift_named(
        self,
        words: Phrase,
        pages: list[RankedPage],
        by_keyword: Sequence[Hit],
        payloads: Payloads,
        part: slice,
    ) -> list[RankedPage]:
        """First the pages with the query as their title, then those with a distinctive query word for word.

        Only the best are compared, so that deeper candidates do not change the order. Fetches the chunks of
        this part of the pages too, most of which will be shown.
        """
        titled = [page.chunks[0] for page in pages[:PAGES_COMPARED]]
        verbatim = by_keyword[:CHUNKS_COMPARED] if words.is_distinctive else []
        pages = lift_pages(pages, await self._quoting(words, verbatim, ("text",)))
        await self._fetch(payloads, [*(hit.id for hit in titled), *chunks_shown(pages[part])])
        known = payloads.keys()
        named = [hit for hit in titled if hit.id in known and words.is_title(payloads[hit.id]["title"])]
        return lift_pages(pages, named)
