import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.port import EMPTY, Hit, IndexedDocument, SparseVector

weight = st.floats(width=32, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=50)
ids = st.binary(min_size=16, max_size=16)
scored = st.dictionaries(ids, st.floats(width=32, allow_nan=False), max_size=3)
hits = scored.map(lambda scores: Hit.all_of([*scores], scores.values()))
terms = st.lists(st.tuples(st.integers(0, 2**32 - 1), weight), max_size=20)
sparse_vectors = st.builds(
    lambda pairs: SparseVector(*map(list, zip(*pairs, strict=True))) if pairs else SparseVector([], []), terms
)
chunks = st.lists(
    st.tuples(
        texts,
        st.lists(weight, min_size=3, max_size=3),
        sparse_vectors,
        texts,
    ),
    max_size=3,
)


@given(texts, texts, texts, st.lists(texts, max_size=3), chunks)
def test_a_document_arrives_as_it_was_sent(
    url: str,
    title: str,
    language: str,
    crawl_ids: list[str],
    chunks: list[tuple[str, list[float], SparseVector, str]],
) -> None:
    texts = [text for text, *_ in chunks]
    dense = np.array([dense for _, dense, *_ in chunks], np.float32)
    sparse = [sparse for _, _, sparse, _ in chunks]
    parts = [parts for *_, parts in chunks]
    sent = IndexedDocument(url, title, language, crawl_ids, texts, dense, sparse, parts)
    came = wire.unpack_document(wire.pack_document(sent))
    assert (came.url, came.title, came.language) == (url, title, language)
    assert (came.crawl_ids, came.texts, came.parts) == (crawl_ids, texts, parts)
    assert np.array_equal(came.dense, dense if texts else EMPTY)
    for one, other in zip(came.sparse, sparse, strict=True):
        assert np.array_equal(one.indices, other.indices)
        assert np.array_equal(one.values, other.values)


@given(hits)
def test_hits_arrive_as_they_were_sent(hits: list[Hit]) -> None:
    assert wire.unpack_hits(wire.pack_hits(hits)) == hits


def test_errors_keep_their_kind_and_text() -> None:
    for error in (IndexUnavailable("down"), IndexUnusable("broken"), CrawlscopeError("odd")):
        came = wire.unpack_error(wire.pack_error(error))
        assert (type(came), str(came)) == (type(error), str(error))
