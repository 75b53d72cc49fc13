from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.port import ChunkPayload, Halves, Hit, IndexedChunk, SparseVector

weights = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20)
texts = st.text(st.characters(codec="utf-8"), max_size=50)
payloads = st.builds(
    ChunkPayload,
    url=texts,
    title=texts,
    text=texts,
    chunk_index=st.integers(0, 10_000),
    domain=texts,
    url_prefixes=st.lists(texts, max_size=3),
    language=texts,
    crawl_ids=st.lists(texts, max_size=3),
)
hits = st.lists(st.builds(Hit, id=st.uuids(), score=st.floats(allow_nan=False), payload=payloads), max_size=3)


@given(st.uuids(), weights, st.lists(st.integers(0, 2**32 - 1), max_size=20), weights, payloads)
def test_a_chunk_arrives_as_it_was_sent(
    identity: UUID, dense: list[float], indices: list[int], values: list[float], payload: ChunkPayload
) -> None:
    sent = IndexedChunk(identity, dense, SparseVector(indices, values), payload)
    came = wire.unpack_chunk(wire.pack_chunk(sent))
    assert (came.id, came.payload) == (identity, payload)
    assert np.array_equal(came.dense, dense)
    assert np.array_equal(came.sparse.indices, indices)
    assert np.array_equal(came.sparse.values, values)


@given(hits, hits)
def test_hits_arrive_as_they_were_sent(dense: list[Hit], bm25: list[Hit]) -> None:
    assert wire.unpack_halves(wire.pack_halves(Halves(dense, bm25))) == Halves(dense, bm25)


@given(st.lists(st.uuids()))
def test_ids_arrive_as_they_were_sent(ids: list[UUID]) -> None:
    assert wire.unpack_ids(wire.pack_ids(ids)) == ids


def test_errors_keep_their_kind_and_text() -> None:
    for error in (IndexUnavailable("away"), IndexUnusable("broken"), CrawlscopeError("odd")):
        came = wire.unpack_error(wire.pack_error(error))
        assert (type(came), str(came)) == (type(error), str(error))
