"""The list of crawls, and the form that starts one."""

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from crawlscope.api.dashboard.rendering import crawl_path, page_router, render
from crawlscope.api.http.parameters import Offset, ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.vocabulary import CrawlStatus, Engine
from crawlscope.crawls.schemas import StartCrawl
from crawlscope.processes.parts import Parts

LISTED = 25
OF_SPARKLINES = {"crawl_id", "total_pages", "searchable_at"}

router = page_router()


@router.get("/")
async def show_crawls(
    request: Request,
    parts: ServiceParts,
    status: str = "",
    url: str = "",
    offset: Offset = 0,
) -> Response:
    return await _list(request, parts, status, url, offset)


async def _list(
    request: Request,
    parts: Parts,
    status: str = "",
    url: str = "",
    offset: int = 0,
    *,
    problem: str | None = None,
    wanted: str = "",
) -> Response:
    chosen = CrawlStatus(status) if status in set(CrawlStatus) else None
    found = await parts.insights.crawls(chosen, url or None, limit=LISTED, offset=offset)
    sparklines = await parts.inspection.sparklines(
        [crawl.model_dump(include=OF_SPARKLINES) for crawl in found.crawls]
    )
    return render(
        request,
        "crawls.html",
        http_status=422 if problem else 200,
        crawls=found.crawls,
        total=found.total,
        offset=offset,
        limit=LISTED,
        status=chosen,
        url=url,
        sparklines=sparklines,
        problem=problem,
        wanted=wanted,
        engines=[Engine.BUILTIN, *([Engine.FIRECRAWL] if parts.settings.firecrawl_url else [])],
    )


@router.post("/crawls")
async def start_crawl(
    request: Request,
    parts: ServiceParts,
    url: Annotated[str, Form()] = "",
    limit: Annotated[str, Form()] = "",
    engine: Annotated[str, Form()] = "",
) -> Response:
    """Leads to the new crawl; shows the list with the reason if it cannot be started."""
    if limit and not limit.isdecimal():
        return await _list(request, parts, problem="The limit is a number of pages.", wanted=url)
    try:
        wanted = StartCrawl(
            url=url, limit=int(limit) if limit else None, engine=Engine(engine) if engine else None
        )
        started = await parts.crawls.start(wanted, parts.settings.allow_private_targets, None)
    except (ValueError, CrawlscopeError) as error:
        problem = str(error) if isinstance(error, CrawlscopeError) else "The limit is 1 to 1,000,000 pages."
        return await _list(request, parts, problem=problem, wanted=url)
    return RedirectResponse(crawl_path(started.crawl_id), 303)
