"""Two crawls side by side: their numbers, and the pages that differ."""

from collections.abc import Iterator

from fastapi import Request
from fastapi.responses import Response

from crawlscope.api.dashboard.rendering import page_router, render
from crawlscope.api.http.parameters import Offset, ServiceParts
from crawlscope.core.vocabulary import ChangeKind
from crawlscope.insights.schemas import DiffLine, PageChangesResponse
from crawlscope.processes.parts import Parts

CHOICES = 50
CHANGES_SHOWN = 50

router = page_router()


@router.get("/compare")
async def show_comparison(
    request: Request,
    parts: ServiceParts,
    a: str = "",
    b: str = "",
    kind: str = "",
    url: str = "",
    offset: Offset = 0,
) -> Response:
    """`a` is compared with `b`; without `b`, there are crawls to choose from. `url`: only this page."""
    chosen = ChangeKind(kind) if kind in set(ChangeKind) else None
    crawl = await parts.insights.crawl(a) if a else None
    others = await parts.insights.crawls(url=crawl.crawl_url if crawl else None, limit=CHOICES)
    return render(
        request,
        "compare.html",
        a=a,
        b=b,
        comparison=await parts.insights.compare(a, b) if a and b else None,
        changes=await _changes(parts, a, b, chosen, url, offset) if a and b else None,
        kind=chosen,
        url=url,
        offset=offset,
        limit=CHANGES_SHOWN,
        marked_line=marked_line,
        crawl=crawl,
        choices=[each for each in others.crawls if each.crawl_id != a],
    )


async def _changes(
    parts: Parts, a: str, b: str, kind: ChangeKind | None, url: str, offset: int
) -> PageChangesResponse:
    if url:
        return await parts.insights.changes_of_page(a, b, url)
    return await parts.insights.page_changes(a, b, kind, CHANGES_SHOWN, offset)


def marked_line(line: DiffLine) -> Iterator[tuple[str, bool]]:
    """The line in pieces; true for those that differ from the line on the other side."""
    at = 0
    for mark in line.marks:
        yield line.text[at : mark.begin], False
        yield line.text[mark.begin : mark.end], True
        at = mark.end
    yield line.text[at:], False
