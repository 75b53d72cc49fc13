"""Filling a new index over HTTP."""

from contextlib import suppress

from fastapi import APIRouter

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.parts import ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.insights.schemas import ReindexResponse
from crawlscope.processes.parts import Parts

router = APIRouter(prefix="/api/reindex", tags=["index"], dependencies=[Authenticated])


@router.post("", status_code=202)
async def begin_reindex(parts: ServiceParts) -> ReindexResponse:
    """Fills a new index from the kept pages, which then takes the place of the one that serves."""
    await parts.host.reindex()
    return await _report(parts)


@router.get("")
async def show_reindex(parts: ServiceParts) -> ReindexResponse:
    """How far it has come."""
    return await _report(parts)


async def _report(parts: Parts) -> ReindexResponse:
    report = await parts.insights.indexes()
    with suppress(CrawlscopeError):
        report.notice = parts.host.require_index().embedder.notice
    return report
