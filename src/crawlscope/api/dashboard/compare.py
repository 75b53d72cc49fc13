"""Two crawls side by side."""

from fastapi import Request
from fastapi.responses import Response

from crawlscope.api.dashboard.rendering import page_router, render
from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.parameters import ServiceParts

CHOICES = 50

router = page_router()


@router.get("/compare", dependencies=[Authenticated])
async def show_comparison(request: Request, parts: ServiceParts, a: str = "", b: str = "") -> Response:
    """`a` is compared with `b`; without `b`, there are crawls to choose from."""
    crawl = await parts.insights.crawl(a) if a else None
    others = await parts.insights.crawls(url=crawl.crawl_url if crawl else None, limit=CHOICES)
    return render(
        request,
        "compare.html",
        a=a,
        b=b,
        comparison=await parts.insights.compare(a, b) if a and b else None,
        changes=None,
        crawl=crawl,
        choices=[each for each in others.crawls if each.crawl_id != a],
    )
