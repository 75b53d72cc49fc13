"""The index over HTTP: search, documents that programs bring, and the reindex that replaces the index."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import CrawlscopeError, ServiceUnavailable
from crawlscope.core.values import storable
from crawlscope.indexing.schemas import DocumentIndexed, NewDocument
from crawlscope.indexing.service import is_overtaken
from crawlscope.insights.schemas import ReindexResponse
from crawlscope.processes.parts import Parts
from crawlscope.search.schemas import SearchRequest, SearchResponse

OVERTAKEN_ATTEMPTS = 3
MAX_BODIES = 4
"""Bodies of documents may take so many times the limit of one body while they wait for their turn."""


class WithinMemory(APIRoute):
    """Refuses a request before it reads its body, while the bodies of others take all of their memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_within_memory(request: Request) -> Response:
            state, limit = request.app.state, request.app.state.parts.settings.max_body_bytes
            unannounced = limit if "transfer-encoding" in request.headers else 0
            size = min(limit, int(request.headers.get("content-length", unannounced)))
            if state.document_bytes + size > MAX_BODIES * limit:
                raise ServiceUnavailable("too many documents wait for their turn: send fewer at once")
            state.document_bytes += size
            try:
                return await handle(request)
            finally:
                state.document_bytes -= size

        return handle_within_memory


class Search(APIRoute):
    """Leaves a request to FastAPI only if its body is wrong: reading it here takes a third of the time."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_search(request: Request) -> Response:
            if request.headers.get("content-type") != "application/json":
                return await handle(request)
            try:
                asked = SearchRequest.model_validate_json(await request.body())
            except (ValidationError, ClientDisconnect):
                return await handle(request)
            found = await search(asked, request.app.state.parts)
            return Response(to_json(found), media_type="application/json")

        return handle_search


router = APIRouter()
documents = APIRouter(route_class=WithinMemory)


async def search(request: SearchRequest, parts: ServiceParts) -> SearchResponse:
    """Searches pages; each result is a page, with its best passage in `text`."""
    return await parts.host.require_index().search.search(request)


router.add_api_route("/api/search", search, methods=["POST"], tags=["search"], route_class_override=Search)


@documents.post("/api/documents", tags=["index"])
async def index_document(document: NewDocument, request: Request, parts: ServiceParts) -> DocumentIndexed:
    """Indexes a document that no crawler delivers. It is searchable when this answers."""
    async with request.app.state.documents:
        async for attempt in retry_context(is_overtaken, attempts=OVERTAKEN_ATTEMPTS, timeout=None):
            with attempt:
                indexing = parts.host.require_index().indexing
                indexed = await indexing.index_document(document.request(), crawl_id=document.crawl_id)
    return DocumentIndexed(**indexed)


@documents.delete("/api/documents", status_code=204, tags=["index"])
async def remove_document(
    parts: ServiceParts, url: Annotated[str, Query(description="the document's URL, all of it")]
) -> None:
    """Removes a document from the index."""
    await parts.host.require_index().indexing.remove_document(storable(url))


@router.post("/api/reindex", status_code=202, tags=["index"])
async def begin_reindex(parts: ServiceParts) -> ReindexResponse:
    """Builds a new index from the stored contents, which then replaces the one that serves."""
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
