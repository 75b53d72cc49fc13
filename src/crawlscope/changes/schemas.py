"""What having a crawl's pages watched answers."""

from pydantic import BaseModel, ConfigDict


class PageNotWatched(BaseModel):
    url: str
    reason: str


class CrawlWatched(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    crawl_id: str
    created: int
    known: int
    """Pages that were watched before, whoever had them watched."""
    refused: list[PageNotWatched]
    left: int
    """Further pages without a watch: beyond the limit, or not tried any more."""
