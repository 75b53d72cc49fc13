"""The two halves of a hybrid query, as every engine is asked for them and answers."""

from collections.abc import Iterable

from crawlscope.indexing.index.port import BM25, DENSE, Floats, Halves, Hit, SparseVector


def asked(dense: Floats | None, sparse: SparseVector | None) -> dict[str, Floats | SparseVector]:
    """The vector of each half that has one, under its name. BM25 without any word finds nothing."""
    vectors: dict[str, Floats | SparseVector] = {}
    if dense is not None:
        vectors[DENSE] = dense
    if sparse is not None and len(sparse.indices):
        vectors[BM25] = sparse
    return vectors


def gathered(names: Iterable[str], answers: Iterable[list[Hit]]) -> Halves:
    """`answers` in the order of the `names` asked."""
    halves = dict(zip(names, answers, strict=True))
    return Halves(dense=halves.get(DENSE, []), bm25=halves.get(BM25, []))
