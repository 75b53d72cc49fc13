"""Chunks for tests: real BM25 weights, dense vectors of chosen directions."""

from crawlscope.indexing.index.port import ChunkPayload, Halves, Hit, IndexedChunk, chunk_id
from crawlscope.indexing.index.urls import domain_of, url_prefixes
from crawlscope.indexing.sparse import Bm25Encoder

DIMENSION = 4
BM25 = Bm25Encoder()


def direction(axis: int, lean: float = 0.0) -> list[float]:
    """The unit vector of an axis, inclined to the next one."""
    vector = [0.0] * DIMENSION
    vector[axis % DIMENSION] = 1.0
    vector[(axis + 1) % DIMENSION] = lean
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]


def make_chunk(
    url: str,
    text: str,
    chunk_index: int = 0,
    dense: list[float] | None = None,
    crawl_ids: tuple[str, ...] = ("crawl-1",),
    language: str = "en",
) -> IndexedChunk:
    return IndexedChunk(
        id=chunk_id(url, chunk_index),
        dense=dense or direction(0),
        sparse=BM25.encode_document(text),
        payload=ChunkPayload(
            url=url,
            title=f"Title of {url}",
            text=text,
            chunk_index=chunk_index,
            domain=domain_of(url),
            url_prefixes=url_prefixes(url),
            language=language,
            crawl_ids=list(crawl_ids),
        ),
    )


def urls(hits: list[Hit]) -> list[str]:
    return [hit.payload["url"] for hit in hits]


def found_urls(halves: Halves) -> set[str]:
    return {*urls(halves.dense), *urls(halves.bm25)}
