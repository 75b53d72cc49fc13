"""The index over HTTP: search, documents that programs bring, and the reindex that replaces the index."""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request

from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import storable
from crawlscope.indexing.schemas import DocumentIndexed, NewDocument
from crawlscope.indexing.service import is_overtaken
from crawlscope.insights.schemas import ReindexResponse
from crawlscope.processes.parts import Parts
from crawlscope.search.schemas import SearchRequest, SearchResponse

OVERTAKEN_ATTEMPTS = 3

router = APIRouter()


@router.post("/api/search", tags=["search"])
async def search(request: SearchRequest, parts: ServiceParts) -> SearchResponse:
    """Searches pages; each result is a page, with its best passage in `text`."""
    return await parts.host.require_index().search.search(request)


@router.post("/api/documents", tags=["index"])
async def index_document(document: NewDocument, request: Request, parts: ServiceParts) -> DocumentIndexed:
    """Indexes a document that no crawler delivers. It is searchable when this answers."""
    async with request.app.state.documents:
        async for attempt in retry_context(is_overtaken, attempts=OVERTAKEN_ATTEMPTS, timeout=None):
            with attempt:
                indexing = parts.host.require_index().indexing
                indexed = await indexing.index_document(document.request(), crawl_id=document.crawl_id)
    return DocumentIndexed(**indexed)


@router.delete("/api/documents", status_code=204, tags=["index"])
async def remove_document(
    parts: ServiceParts, url: Annotated[str, Query(description="the document's URL, all of it")]
) -> None:
    """Removes a document from the index."""
    await parts.host.require_index().indexing.remove_document(storable(url))


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
