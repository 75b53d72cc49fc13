"""One crawl: its overview, its pages on a time axis, its failures, its deliveries, and the actions on it."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Form, Path, Request
from fastapi.responses import JSONResponse, Response

from crawlscope.api.dashboard import figures
from crawlscope.api.dashboard.figures import Axis
from crawlscope.api.dashboard.flash_messages import redirect_with_notice
from crawlscope.api.dashboard.rendering import SharedAnswers, crawl_path, page_router, render
from crawlscope.api.http.parameters import MAX_OFFSET, Limit, Offset, Segment, ServiceParts
from crawlscope.api.rendering.retried import BECAUSE
from crawlscope.api.rendering.words import count
from crawlscope.core.compression import DamagedBody, decompress
from crawlscope.core.errors import SettingsError
from crawlscope.core.vocabulary import NotRetried, PageState
from crawlscope.crawls.schemas import PagesQueued, RetryPages
from crawlscope.insights.inspection import CrawlSpan
from crawlscope.insights.inspection_queries import SpanOrder, WhichPages
from crawlscope.insights.schemas import CrawlMetricsResponse
from crawlscope.processes.parts import Parts

SLOWEST_SHOWN = 8
CAUSES_SHOWN = 4
ROWS_SHOWN = 100
FIRST_ROWS = 200
"""The number of rows that the waterfall requests at a time."""
BUCKETS = 120
"""The number of parts of the timeline."""
EMBEDDED_PAGES = 2_000
"""The overview of a larger crawl loads the timeline after it is shown."""
MAX_BODY_SHOWN = 256 * 1024
MAX_INDENTED = 4 * MAX_BODY_SHOWN
"""Characters of a body: a larger one would take seconds, and much memory."""

router = page_router()


@router.get("/crawls/{crawl_id}")
async def show_crawl(request: Request, crawl_id: Segment, parts: ServiceParts) -> Response:
    crawl, span, causes, slowest = await asyncio.gather(  # each reads on a connection of its own
        parts.insights.crawl(crawl_id),
        parts.inspection.span(crawl_id),
        parts.inspection.causes(crawl_id),
        parts.inspection.slowest(crawl_id, SLOWEST_SHOWN),
    )
    return render(
        request,
        "crawl.html",
        **_header(crawl, span, "overview"),
        slowest=slowest,
        causes=causes[:CAUSES_SHOWN],
        causes_left=len(causes) - CAUSES_SHOWN,
        **await _course(parts, crawl, is_followed="hx-request" in request.headers),
    )


async def _course(parts: Parts, crawl: CrawlMetricsResponse, *, is_followed: bool) -> dict[str, Any]:
    if crawl.total_pages > EMBEDDED_PAGES and not is_followed:
        return {"diagnosis": None, "timeline": None}
    return {
        "diagnosis": await parts.insights.diagnosis(crawl.crawl_id),
        "timeline": await parts.insights.timeline(crawl.crawl_id, BUCKETS),
    }


@router.get("/crawls/{crawl_id}/timeline")
async def show_timeline(request: Request, crawl_id: Segment, parts: ServiceParts) -> Response:
    """The course of the crawl on one time axis, and its bottleneck."""
    return render(
        request,
        "timeline.html",
        **await _known_crawl(parts, crawl_id, "timeline"),
        diagnosis=await parts.insights.diagnosis(crawl_id),
        timeline=await parts.insights.timeline(crawl_id, BUCKETS),
    )


async def _known_crawl(parts: Parts, crawl_id: str, tab: str) -> dict[str, Any]:
    crawl, span = await asyncio.gather(parts.insights.crawl(crawl_id), parts.inspection.span(crawl_id))
    return _header(crawl, span, tab)


def _header(crawl: CrawlMetricsResponse, span: CrawlSpan, tab: str) -> dict[str, Any]:
    """The top of every page about a crawl."""
    now = None if crawl.searchable_at else crawl.last_fact_at
    axis = Axis.between(
        crawl.initiated_at,
        crawl.started_at,
        span.first_queued_at,
        crawl.completed_at,
        span.last_settled_at,
        now,
    )
    return {"crawl": crawl, "tab": tab, "span": span, "axis": axis}


@router.get("/crawls/{crawl_id}/pages")
async def show_pages(
    request: Request,
    crawl_id: Segment,
    parts: ServiceParts,
    state: str = "",
    url: str = "",
    sort: SpanOrder = SpanOrder.STARTED,
    offset: Offset = 0,
) -> Response:
    """The waterfall. Without a script it is a list with 100 pages at a time; for a script that follows it,
    the refreshed page has the first rows.
    """
    chosen, is_followed = _page_state(state), "hx-request" in request.headers
    which, slice_ = WhichPages(chosen, url or None), (FIRST_ROWS, 0) if is_followed else (ROWS_SHOWN, offset)
    header, found = await asyncio.gather(
        _known_crawl(parts, crawl_id, "pages"), parts.inspection.spans(crawl_id, which, sort, *slice_)
    )
    return render(
        request,
        "pages.html",
        **header,
        rows=found.rows,
        first_rows=_rows_for_script(found.rows) if is_followed else None,
        total=found.total,
        state=chosen,
        url=url,
        sort=sort,
        sorts=list(SpanOrder),
        states=list(PageState),
        offset=offset,
        limit=ROWS_SHOWN,
    )


@router.get("/crawls/{crawl_id}/spans")
async def list_spans(
    request: Request,
    crawl_id: Segment,
    parts: ServiceParts,
    state: str = "",
    url: str = "",
    sort: SpanOrder = SpanOrder.STARTED,
    limit: Limit = ROWS_SHOWN,
    offset: Offset = 0,
) -> Response:
    """The rows of the waterfall for its script, which asks again whenever the page is refreshed."""
    shared: SharedAnswers = request.app.state.shared_answers
    which = WhichPages(_page_state(state), url or None)
    return await shared.get(str(request.url), lambda: _spans(parts, crawl_id, which, sort, limit, offset))


async def _spans(
    parts: Parts, crawl_id: str, which: WhichPages, sort: SpanOrder, limit: int, offset: int
) -> Response:
    found = await parts.inspection.spans(crawl_id, which, sort, limit, offset)
    answer = {"rows": _rows_for_script(found.rows), "total": found.total}
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


def _rows_for_script(rows: Iterable[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Times are in ms since the Unix epoch, stages in their order."""
    return [
        {
            "url": row["url"],
            "state": row["state"],
            "attempts": row["attempts"],
            "error_code": row["error_code"],
            "queued_ms": _epoch_ms(row["queued_at"] or row["received_at"]),
            "started_ms": _epoch_ms(row["started_at"]),
            "settled_ms": _epoch_ms(row["settled_at"]),
            "total_ms": row["total_ms"],
            "wait_ms": row["queue_wait_ms"],
            "stages": figures.stages_of(row["stages"] or {}, row["total_ms"])
            if row["total_ms"] is not None
            else [],
        }
        for row in rows
    ]


def _page_state(name: str) -> PageState | None:
    return PageState(name) if name in set(PageState) else None


def _epoch_ms(moment: object) -> float | None:
    return moment.timestamp() * 1000 if hasattr(moment, "timestamp") else None


@router.get("/crawls/{crawl_id}/failures")
async def show_failures(request: Request, crawl_id: Segment, parts: ServiceParts) -> Response:
    header = await _known_crawl(parts, crawl_id, "failures")
    return render(request, "failures.html", **header, causes=await parts.inspection.causes(crawl_id))


@router.get("/crawls/{crawl_id}/deliveries")
async def show_deliveries(
    request: Request, crawl_id: Segment, parts: ServiceParts, offset: Offset = 0
) -> Response:
    found = await parts.insights.deliveries(crawl_id, ROWS_SHOWN, offset)
    return render(
        request,
        "deliveries.html",
        **await _known_crawl(parts, crawl_id, "deliveries"),
        deliveries=found.deliveries,
        total=found.total,
        offset=offset,
        limit=ROWS_SHOWN,
    )


@router.get("/crawls/{crawl_id}/deliveries/{delivery_id}")
async def show_delivery(
    request: Request,
    crawl_id: Segment,
    delivery_id: Annotated[int, Path(ge=0, le=MAX_OFFSET)],
    parts: ServiceParts,
) -> Response:
    delivery = await parts.inspection.delivery(crawl_id, delivery_id)
    return render(
        request,
        "delivery.html",
        **await _known_crawl(parts, crawl_id, "deliveries"),
        delivery=delivery,
        body=readable_body(delivery["body"]),
    )


def readable_body(stored: bytes | None) -> str | None:
    """The start of a delivery's body, indented if it is JSON and not large; None if it is no longer kept."""
    if stored is None:
        return None
    try:
        body = decompress(stored).decode("utf-8", "replace")
    except DamagedBody as error:
        return str(error)
    if len(body) <= MAX_INDENTED:
        with suppress(ValueError, RecursionError):
            body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    left = len(body) - MAX_BODY_SHOWN
    return body if left <= 0 else f"{body[:MAX_BODY_SHOWN]}\n… and {left:,} more characters"


@router.post("/crawls/{crawl_id}/retry")
async def retry_pages(
    request: Request,
    crawl_id: Segment,
    parts: ServiceParts,
    url: Annotated[str | None, Form()] = None,
) -> Response:
    """Retries one page, the pages with one cause (empty: without a code), or all failed pages."""
    urls = None if url is None else [url]
    cause = (await request.form()).get("cause")  # FastAPI takes an empty field for a missing one
    if urls is None and cause is not None:
        urls = await parts.inspection.urls_of_cause(crawl_id, str(cause) or None)
    allow_private = parts.settings.allow_private_targets
    try:
        which = RetryPages(urls=urls, rescrape=True)
        retried = await parts.crawls.retry(crawl_id, which, allow_private, None)
    except SettingsError:  # nothing here can fetch pages again
        retried = await parts.crawls.retry(crawl_id, RetryPages(urls=urls), allow_private, None)
    below = ["page"] if url is not None else ["failures"]
    query = {} if url is None else {"url": url}
    return redirect_with_notice(request, crawl_path(crawl_id, *below, **query), retry_notice(retried))


def retry_notice(retried: PagesQueued) -> str:
    said = (
        [f"{count(retried.queued, 'page')} queued again"] if retried.queued or not retried.rescraped else []
    )
    if retried.rescraped:
        said.append(
            f"{count(retried.rescraped, 'page')} fetched again, in the crawl {retried.rescrape_crawl_id}"
        )
    said += [f"{number:,} {BECAUSE[NotRetried(reason)]}" for reason, number in retried.left.items()]
    return "; ".join(said) + "."


@router.post("/crawls/{crawl_id}/cancel")
async def cancel_crawl(request: Request, crawl_id: Segment, parts: ServiceParts) -> Response:
    cancelled = await parts.crawls.cancel(crawl_id)
    notice = (
        "The crawl is being cancelled. Pages that have arrived are still indexed."
        if cancelled
        else "It has ended."
    )
    return redirect_with_notice(request, crawl_path(crawl_id), notice)


@router.post("/crawls/{crawl_id}/reconcile")
async def reconcile_crawl(request: Request, crawl_id: Segment, parts: ServiceParts) -> Response:
    found = await parts.crawls.reconcile(crawl_id)
    notice = f"Compared with Firecrawl: {count(found.added, 'page')} added. {found.note or ''}"
    return redirect_with_notice(request, crawl_path(crawl_id), notice)


@router.post("/crawls/{crawl_id}/delete")
async def delete_crawl(request: Request, crawl_id: Segment, parts: ServiceParts) -> Response:
    goes_on = await parts.crawls.delete(crawl_id, parts.host.require_index().indexing)
    notice = f"Crawl {crawl_id} was deleted." + (f" It may continue: {goes_on}." if goes_on else "")
    return redirect_with_notice(request, "/", notice)
