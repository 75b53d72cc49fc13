"""What a filter asks of a chunk's payload, in words that every engine understands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from crawlscope.indexing.index.port import Filters
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
