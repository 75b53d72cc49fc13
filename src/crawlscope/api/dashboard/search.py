"""Search over all indexed pages, with the reason for each hit's place."""

from collections.abc import Iterator
from typing import Annotated, get_args

from fastapi import Query, Request
from fastapi.responses import Response

from crawlscope.api.dashboard.rendering import page_router, render
from crawlscope.api.http.parameters import Offset, ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.search.schemas import Highlight, Mode, SearchFilters, SearchRequest

HITS_SHOWN = 10
MAX_OFFSET = 1_000

router = page_router()


@router.get("/search")
async def show_search(
    request: Request,
    parts: ServiceParts,
    q: str = "",
    mode: Mode = "hybrid",
    domain: Annotated[str, Query(max_length=255)] = "",
    crawl_id: Annotated[str, Query(max_length=255)] = "",
    language: Annotated[str, Query(max_length=64)] = "",
    url_prefix: Annotated[str, Query(max_length=8192)] = "",
    offset: Offset = 0,
) -> Response:
    given = {"domain": domain, "crawl_id": crawl_id, "language": language, "url_prefix": url_prefix}
    filters = {name: value for name, value in given.items() if value}
    found, problem = None, None
    if query := q.strip()[:4096]:
        wanted = SearchRequest(
            query=query,
            mode=mode,
            limit=HITS_SHOWN,
            offset=min(offset, MAX_OFFSET),
            filters=SearchFilters(**filters) if filters else None,
        )
        try:
            found = await parts.host.require_index().search.search(wanted)
        except CrawlscopeError as error:
            problem = str(error)
    return render(
        request,
        "search.html",
        http_status=503 if problem else 200,
        q=q,
        mode=mode,
        modes=get_args(Mode),
        given=given,
        found=found,
        problem=problem,
        offset=offset,
        limit=HITS_SHOWN,
        pieces=pieces,
    )


def pieces(highlight: Highlight) -> Iterator[tuple[str, bool]]:
    """The text in pieces; true for those that are words of the query."""
    at = 0
    for match in highlight.matches:
        yield highlight.text[at : match.start], False
        yield highlight.text[match.start : match.end], True
        at = match.end
    yield highlight.text[at:], False
