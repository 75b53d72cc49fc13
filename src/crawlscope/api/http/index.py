"""The index over HTTP: search, and the reindex that replaces it."""

from contextlib import suppress

from fastapi import APIRouter

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.insights.schemas import ReindexResponse
from crawlscope.processes.parts import Parts
from crawlscope.search.schemas import SearchRequest, SearchResponse

router = APIRouter(dependencies=[Authenticated])


@router.post("/api/search", tags=["search"])
async def search(request: SearchRequest, parts: ServiceParts) -> SearchResponse:
    """Searches pages; each result is a page, with its best passage in `text`."""
    return await parts.host.require_index().search.search(request)


@router.post("/api/reindex", status_code=202, tags=["index"])
async def begin_reindex(parts: ServiceParts) -> ReindexResponse:
    """Builds a new index from the stored pages, which then replaces the one that serves."""
    await parts.host.reindex()
    return await _report(parts)


@router.get("/api/reindex", tags=["index"])
async def show_reindex(parts: ServiceParts) -> ReindexResponse:
    """The progress of the reindex."""
    return await _report(parts)


async def _report(parts: Parts) -> ReindexResponse:
    report = await parts.insights.indexes()
    with suppress(CrawlscopeError):
        report.notice = parts.host.require_index().embedder.notice
    return report
