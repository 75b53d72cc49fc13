"""The HTTP API's answers on watches."""

from pydantic import BaseModel, ConfigDict


class PageNotWatched(BaseModel):
    url: str
    reason: str


class CrawlWatched(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    crawl_id: str
    created: int
    known: int
    """Pages that had a watch before."""
    refused: list[PageNotWatched]
    left: int
    """Further pages without a watch: beyond the limit, or not attempted."""
