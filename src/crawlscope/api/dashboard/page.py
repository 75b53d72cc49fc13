"""One page of a crawl: its attempts, its text and chunks, the raw delivery, and its history over crawls."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from crawlscope.api.dashboard.crawl import readable_body
from crawlscope.api.dashboard.figures import Axis, Part, stages_of
from crawlscope.api.dashboard.rendering import page_router, render
from crawlscope.api.http.parameters import Segment, ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.indexing.index.port import ChunkPayload, chunk_id
from crawlscope.insights.inspection import PageDetails
from crawlscope.insights.schemas import AttemptRow
from crawlscope.processes.parts import Parts

MAX_TEXT_SHOWN = 100_000
MAX_CHUNKS_SHOWN = 50

router = page_router()


@router.get("/crawls/{crawl_id}/page")
async def show_page(request: Request, crawl_id: Segment, url: str, parts: ServiceParts) -> Response:
    crawl = await parts.insights.crawl(crawl_id)
    found = await parts.inspection.page(crawl_id, url)
    attempts = (await parts.insights.attempts(crawl_id, url)).attempts
    chunks, problem = await _chunks(parts, found)
    markdown = found.page["markdown"] or ""
    return render(
        request,
        "page.html",
        crawl=crawl,
        page=found.page,
        operations=found.operations,
        trace=_trace(found),
        attempts=[(each, attempt_bar(each)) for each in attempts],
        history=_with_changes(found),
        delivery=found.delivery,
        body=readable_body(found.delivery["body"]) if found.delivery else None,
        document=found.document,
        chunks=chunks,
        chunks_problem=problem,
        text=markdown[:MAX_TEXT_SHOWN],
        characters=len(markdown),
        max_chunks=MAX_CHUNKS_SHOWN,
    )


async def _chunks(parts: Parts, found: PageDetails) -> tuple[list[ChunkPayload], str | None]:
    """The first chunks that the index holds for the page, and why they cannot be shown."""
    document = found.document
    if document is None:
        return [], None
    ids = [chunk_id(document["url"], n) for n in range(min(document["chunks"], MAX_CHUNKS_SHOWN))]
    try:
        payloads = await parts.host.require_index().index.payloads(ids)
    except CrawlscopeError as error:
        return [], str(error)
    return [payloads[each] for each in ids if each in payloads], None


def attempt_bar(attempt: AttemptRow) -> list[tuple[str, float]]:
    return stages_of(attempt.stages, attempt.total_ms) if attempt.total_ms is not None else []


def _trace(found: PageDetails) -> list[tuple[Mapping[Any, Any], Part]]:
    """Each measured operation of the page on one time axis."""
    spans = [row for row in found.operations if row["operation_type"] != "webhook"]
    ends = [row["timestamp"] + timedelta(milliseconds=row["duration_ms"]) for row in spans]
    axis = Axis.between(*(row["timestamp"] for row in spans), *ends)
    if axis is None:
        return []
    return [
        (row, axis.bar(row["operation_type"], row["timestamp"], end))
        for row, end in zip(spans, ends, strict=True)
    ]


def _with_changes(found: PageDetails) -> list[tuple[Mapping[Any, Any], str]]:
    """Each crawl's version of the page with its relation to the version before: `first`, `changed`, `same`,
    or nothing if no content is stored."""
    versions, before = [], None
    for row in reversed(found.history):
        digest = row["digest"]
        if digest is None:
            word = ""
        elif before is None:
            word = "first"
        else:
            word = "same" if digest == before else "changed"
        before = digest or before
        versions.append((row, word))
    return versions[::-1]
