"""The common code of Qdrant Edge and a Qdrant server: filters, query vectors, results, errors."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from crawlscope.core.errors import IndexUnusable
from crawlscope.indexing.index.fields import BM25, DENSE, PREFIX_FIELD
from crawlscope.indexing.index.port import (
    Filters,
    Floats,
    Halves,
    Hit,
    Integers,
    SparseVector,
)
from crawlscope.indexing.index.urls import host_of, url_prefixes
from crawlscope.indexing.language import primary_language
from crawlscope.indexing.phrase import Phrase

T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    key: str
    match: Literal["any", "none", "prefix"]
    texts: tuple[str, ...]
    """One for `prefix`."""


def conditions(filters: Filters) -> Iterator[Condition]:
    if filters.domain is not None:
        host = host_of(filters.domain).removeprefix("www.")
        yield Condition("domain", "any", (host, f"www.{host}"))
    if filters.crawl_id is not None:
        yield Condition("crawl_ids", "any", (filters.crawl_id,))
    if filters.language is not None:
        yield Condition("language", "any", (primary_language(filters.language) or filters.language,))
    if filters.url_prefix:
        # Whole segments are one keyword. Other prefixes walk every URL below, which takes several times as
        # long on a large site.
        keyword = filters.url_prefix in url_prefixes(filters.url_prefix)
        texts = (filters.url_prefix,)
        yield Condition("url_prefixes", "any", texts) if keyword else Condition(PREFIX_FIELD, "prefix", texts)
    if filters.urls is not None:
        yield Condition(PREFIX_FIELD, "any", tuple(filters.urls))
    if filters.other_than:
        yield Condition(PREFIX_FIELD, "none", tuple(filters.other_than))


def vectors_by_name(dense: Floats | None, sparse: SparseVector | None) -> dict[str, Floats | SparseVector]:
    """The vectors to query. A sparse vector without any term finds nothing and is left out."""
    vectors: dict[str, Floats | SparseVector] = {}
    if dense is not None:
        vectors[DENSE] = dense
    if sparse is not None and len(sparse.indices):
        vectors[BM25] = sparse
    return vectors


def halves(names: Iterable[str], hits: Iterable[list[Hit]]) -> Halves:
    """`hits` in the order of the `names` of the vectors that were queried."""
    by_name = dict(zip(names, hits, strict=True))
    return Halves(dense=by_name.get(DENSE, []), bm25=by_name.get(BM25, []))


TEXT_FIELDS: list[str] = ["text", "title"]


def has_phrase(phrase: Phrase, stored: Mapping[str, Any] | None, fields: Sequence[str]) -> bool:
    """`stored` are the text fields, without a title if the writer of the chunk was killed."""
    return stored is not None and "title" in stored and any(phrase.is_in(stored[field]) for field in fields)


def idf(chunks: float, with_term: float) -> float:
    """The engine's: the factor of a term in the score of a chunk."""
    return math.log((chunks + 1) / (with_term + 0.5))


def chunks_with_term(chunks: int, idf: float) -> float:
    """The reverse, of a term that some chunk has."""
    return max(1.0, (chunks + 1) / math.exp(idf) - 0.5)


def by_crawl_ids(crawl_ids: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], list[str]]:
    """The URLs of the documents that the same crawls found."""
    urls: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for url, ids in crawl_ids.items():
        urls[tuple(ids)].append(url)
    return urls


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def as_floats(values: Floats) -> list[float]:
    return values if isinstance(values, list) else np.asarray(values, dtype=np.float32).tolist()


def as_integers(values: Integers) -> list[int]:
    return values if isinstance(values, list) else np.asarray(values, dtype=np.uint32).tolist()


def check_dimension(vectors: Floats | npt.NDArray[np.float32], dimension: int) -> None:
    """Checks one vector, or several in an array, which may be empty."""
    found = np.shape(vectors)
    if found[0] and found[-1] != dimension:
        raise IndexUnusable(
            f"the index holds vectors of {dimension} dimensions and was handed one of {found[-1]}: "
            "the embedder was changed: run `crawlscope reindex`"
        )
