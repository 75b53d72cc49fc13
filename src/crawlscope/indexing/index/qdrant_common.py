"""What Qdrant Edge and a Qdrant server have in common: filters, the halves of a query, plain vectors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crawlscope.core.errors import IndexUnusable
from crawlscope.indexing.index.port import BM25, DENSE, Filters, Floats, Halves, Hit, Integers, SparseVector
from crawlscope.indexing.index.urls import host_of, url_prefixes
from crawlscope.indexing.language import primary_language

KEYWORD_FIELDS = ("domain", "crawl_ids", "language", "url_prefixes")
"""Payload fields that are matched as a whole; of a list, one element has to match."""
PREFIX_FIELD = "url"
"""The payload field that is matched by how it begins."""


@dataclass(frozen=True)
class Condition:
    key: str
    match: Literal["any", "prefix"]
    texts: tuple[str, ...]
    """One for `prefix`."""


def conditions(filters: Filters) -> Iterator[Condition]:
    if filters.domain is not None:
        yield Condition("domain", "any", _with_and_without_www(host_of(filters.domain)))
    if filters.crawl_id is not None:
        yield Condition("crawl_ids", "any", (filters.crawl_id,))
    if filters.language is not None:
        yield Condition("language", "any", (primary_language(filters.language) or filters.language,))
    if filters.url_prefix:
        yield _under(filters.url_prefix)


def _with_and_without_www(host: str) -> tuple[str, str]:
    bare = host.removeprefix("www.")
    return bare, f"www.{bare}"


def _under(prefix: str) -> Condition:
    """A prefix of whole segments is one keyword; any other walks every URL that begins so, which on a
    large site takes several times as long.
    """
    if prefix in url_prefixes(prefix):
        return Condition("url_prefixes", "any", (prefix,))
    return Condition(PREFIX_FIELD, "prefix", (prefix,))


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


def as_floats(values: Floats) -> list[float]:
    plain: list[float] = np.asarray(values, dtype=np.float32).tolist()
    return plain


def as_integers(values: Integers) -> list[int]:
    plain: list[int] = np.asarray(values, dtype=np.uint32).tolist()
    return plain


def check_dimension(vector: Floats, dimension: int) -> None:
    if len(vector) != dimension:
        raise IndexUnusable(
            f"the index holds vectors of {dimension} dimensions and was handed one of {len(vector)}: "
            "the embedder was changed: run `crawlscope reindex`"
        )
