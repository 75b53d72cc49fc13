"""Search requests and responses, as all interfaces and clients use them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from crawlscope.core.json_types import Whole

Mode = Literal["hybrid", "semantic", "keyword"]
_DOCSTRINGS = ConfigDict(use_attribute_docstrings=True)


class SearchFilters(BaseModel):
    """All given filters must match."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    domain: str | None = Field(default=None, min_length=1, max_length=255)
    """The host, with or without `www.`: `docs.python.org`. Case and port do not matter."""
    crawl_id: str | None = Field(default=None, min_length=1, max_length=255)
    """A crawl that found the page, even if an earlier crawl brought its content."""
    language: str | None = Field(default=None, min_length=1, max_length=64)
    """Its primary tag counts: `en`, `EN` and `en-US` find the same."""
    url_prefix: str | None = Field(default=None, min_length=1, max_length=8192)
    """How the page's URL begins: `https://docs.python.org/3/library/`."""


class SearchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    query: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096, pattern=r"\S")
    ]
    """`"two words"` in quotation marks must stand on the page, if any page has them; `-word` and
    `-"two words"` must not."""
    mode: Mode = "hybrid"
    """`keyword` matches words (BM25), `semantic` matches meaning (dense vectors), `hybrid` matches both."""
    limit: Whole = Field(default=10, ge=1, le=100)
    offset: Whole = Field(default=0, ge=0, le=1000)
    filters: SearchFilters | None = None


@dataclass
class Passage:
    text: str
    chunk_index: int
    score: float


@dataclass
class MatchedWord:
    """The place of a word in a text, from `start` to before `end`."""

    start: int
    end: int


@dataclass
class Highlight:
    """A passage that answers the query: whole sentences of a chunk, without Markdown's marks."""

    __pydantic_config__ = _DOCSTRINGS

    text: str
    """The passage on one line, at most 300 characters."""
    chunk_index: int
    matches: list[MatchedWord]
    """Each word of the query in `text`, in any form that the index takes for the same."""


@dataclass
class Standing:
    """How one half of the query found a page."""

    __pydantic_config__ = _DOCSTRINGS

    rank: int
    """The place among the pages that this half found, from 1 on."""
    score: float
    """The score of the page's best chunk in this half: BM25, or the cosine, which the best part of the chunk
    moves."""
    chunk_index: int
    text: str
    """The text of that chunk."""


class SearchResult(BaseModel):
    """One page with the best of its chunks."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str
    title: str
    text: str
    """The best chunk."""
    score: float
    """0 to 1 in hybrid mode, the best chunk's cosine in semantic mode, its BM25 in keyword mode. A page with
    the query as its title, or with a long query word for word, gets the best score."""
    rerank_score: float | None = None
    """The score that orders the first results if a reranker is configured; the score of its model."""
    crawl_id: str | None
    """The crawl of the filter, else the latest crawl that found the page."""
    chunk_index: int
    crawl_ids: list[str]
    domain: str
    language: str
    passages: list[Passage]
    """Further chunks of the page that were found, at most four, best first."""
    highlights: list[Highlight] = []
    """At most three, the best first. Sentences that stand on several pages of the site are left out."""
    keyword: Standing | None = None
    """Null if BM25 did not find the page, or was not used."""
    semantic: Standing | None = None
    """Null if the dense vectors did not find the page, or were not used."""


class SearchResponse(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    results: list[SearchResult]
    total: int
    """Number of pages of the candidates: a lower bound of the pages that match, exact if all matching chunks
    were candidates."""
    mode: Mode
    took_ms: float
    phrases: list[str] = []
    """The phrases of the query in quotation marks that any page has: each result contains them word for word.
    """
    excluded: list[str] = []
    """The words and phrases of the query after a hyphen: no result contains them."""
    corrected_query: str | None = None
    """The query that was used instead, because the index does not know a word of the given one; otherwise
    null."""
