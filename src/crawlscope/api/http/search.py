"""Search over HTTP."""

from fastapi import APIRouter

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.parts import ServiceParts
from crawlscope.search.schemas import SearchRequest, SearchResponse

router = APIRouter(tags=["search"], dependencies=[Authenticated])


@router.post("/api/search")
async def search(request: SearchRequest, parts: ServiceParts) -> SearchResponse:
    """Finds pages; each comes once, with its best passage in `text`."""
    return await parts.host.require_index().search.search(request)
