"""Makes the results of a search from the chunks of its pages."""

from collections.abc import Iterator, Sequence

from crawlscope.indexing.index.port import ChunkId, ChunkPayload
from crawlscope.search.highlights import Highlighter
from crawlscope.search.query_words import QueryWords
from crawlscope.search.ranking import RankedPage
from crawlscope.search.ranking import Standing as Ranked
from crawlscope.search.schemas import Highlight, Passage, SearchResult, Standing

MAX_PASSAGES = 4
MAX_HIGHLIGHTS = 3
MIN_HIGHLIGHTED_SHARE = 0.5
"""A share of the score of the page's best chunk."""

Payloads = dict[ChunkId, ChunkPayload]


def chunks_shown(pages: Sequence[RankedPage]) -> Iterator[ChunkId]:
    """The best chunks of each page, and its best chunk in each half."""
    for page in pages:
        yield from (hit.id for hit in page.chunks[: 1 + MAX_PASSAGES])
        yield from (half.best.id for half in (page.bm25, page.dense) if half)


def make_results(
    pages: Sequence[RankedPage], payloads: Payloads, words: QueryWords, filtered_crawl: str | None
) -> list[SearchResult]:
    """Without pages that were removed since they were found."""
    chunks = [
        [
            payloads[hit.id]
            for hit in found[:MAX_HIGHLIGHTS]
            if hit.id in payloads and hit.score >= MIN_HIGHLIGHTED_SHARE * found[0].score
        ]
        for found in [page.chunks for page in pages]
    ]
    highlighter = Highlighter(words, (chunk for each in chunks for chunk in each))
    return [
        _result(page, payloads, filtered_crawl, highlighter.highlights(best))
        for page, best in zip(pages, chunks, strict=True)
        if page.chunks[0].id in payloads
    ]


def _result(
    page: RankedPage, payloads: Payloads, filtered_crawl: str | None, highlights: list[Highlight]
) -> SearchResult:
    (_, best), *others = [
        (hit, payloads[hit.id]) for hit in page.chunks[: 1 + MAX_PASSAGES] if hit.id in payloads
    ]
    crawl_ids = best["crawl_ids"]
    return SearchResult(
        url=best["url"],
        title=best["title"],
        text=best["text"],
        score=page.score,
        rerank_score=page.rerank_score,
        crawl_id=filtered_crawl or (crawl_ids[-1] if crawl_ids else None),
        chunk_index=best["chunk_index"],
        crawl_ids=crawl_ids,
        domain=best["domain"],
        language=best["language"],
        passages=[Passage(chunk["text"], chunk["chunk_index"], hit.score) for hit, chunk in others],
        highlights=highlights,
        keyword=_standing(page.bm25, payloads),
        semantic=_standing(page.dense, payloads),
    )


def _standing(half: Ranked | None, payloads: Payloads) -> Standing | None:
    if half is None or half.best.id not in payloads:
        return None
    chunk = payloads[half.best.id]
    return Standing(half.rank, half.best.score, chunk["chunk_index"], chunk["text"])
