"""Documents for tests: real BM25 weights, dense vectors of chosen directions."""

import numpy as np

from crawlscope.indexing.index.port import Halves, Hit, IndexedDocument, document_key
from crawlscope.indexing.sparse import Bm25Encoder

DIMENSION = 4
BM25 = Bm25Encoder()

_urls: dict[bytes, str] = {}
"""The URLs of the documents that were made."""


def direction(axis: int, lean: float = 0.0) -> list[float]:
    """The unit vector of an axis, inclined to the next one."""
    vector = [0.0] * DIMENSION
    vector[axis % DIMENSION] = 1.0
    vector[(axis + 1) % DIMENSION] = lean
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]


def make_document(
    url: str,
    *texts: str,
    dense: list[float] | None = None,
    crawl_ids: tuple[str, ...] = ("crawl-1",),
    language: str = "en",
) -> IndexedDocument:
    """One chunk for each text, all with the same dense vector."""
    _urls[document_key(url)] = url
    return IndexedDocument(
        url=url,
        title=f"Title of {url}",
        language=language,
        crawl_ids=crawl_ids,
        texts=texts,
        dense=np.array([dense or direction(0)] * len(texts), np.float32),
        sparse=[BM25.encode_document(text) for text in texts],
    )


def urls(hits: list[Hit]) -> list[str]:
    return [_urls[hit.document] for hit in hits]


def found_urls(halves: Halves) -> set[str]:
    return {*urls(halves.dense), *urls(halves.bm25)}
