"""Watches on the pages of a crawl over HTTP."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from crawlscope.api.http.parameters import Segment, ServiceParts
from crawlscope.changes.schemas import CrawlWatched
from crawlscope.changes.watches import DEFAULT_LIMIT, MAX_WATCHES

router = APIRouter(prefix="/api/crawls", tags=["changes"])


class WatchPages(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_WATCHES)
    urls: Annotated[list[str], Field(min_length=1, max_length=MAX_WATCHES)] | None = None
    """Only these pages. Default: all searchable pages."""


@router.post("/{crawl_id}/watches")
async def watch_crawl(
    crawl_id: Segment, parts: ServiceParts, which: WatchPages | None = None
) -> CrawlWatched:
    """Makes changedetection.io watch the searchable pages of the crawl and report changes to this service."""
    which = which or WatchPages()
    return await parts.watching.watch(crawl_id, which.limit, which.urls)
