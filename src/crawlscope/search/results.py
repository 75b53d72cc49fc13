"""Makes the result of a page from its chunks."""

from collections.abc import Iterator

from crawlscope.indexing.index.port import ChunkId, ChunkPayload
from crawlscope.search.ranking import RankedPage
from crawlscope.search.ranking import Standing as Ranked
from crawlscope.search.schemas import Passage, SearchResult, Standing

MAX_PASSAGES = 4

Payloads = dict[ChunkId, ChunkPayload]


def chunks_shown(page: RankedPage) -> Iterator[ChunkId]:
    """The chunks of a result: the best ones of the page, and the best one in each half."""
    yield from (hit.id for hit in page.chunks[: 1 + MAX_PASSAGES])
    yield from (half.best.id for half in (page.bm25, page.dense) if half)


def make_result(page: RankedPage, payloads: Payloads, filtered_crawl: str | None) -> SearchResult:
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
