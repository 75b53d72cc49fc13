"""The HTTP application over the parts of a running service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

from crawlscope import __version__
from crawlscope.api.dashboard.live_pages import FollowedPages
from crawlscope.api.dashboard.rendering import SharedAnswers, render
from crawlscope.api.dashboard.routes import ROUTERS as DASHBOARD
from crawlscope.api.dashboard.sign_in import FailedSignIns
from crawlscope.api.dashboard.static_files import StaticFiles
from crawlscope.api.http import (
    crawls,
    errors,
    events,
    export,
    health,
    index,
    keys,
    metrics,
    notifications,
    prometheus,
    watches,
    webhooks,
)
from crawlscope.api.http.access import STATIC_PREFIX, BodyLimit, Guard
from crawlscope.api.http.requests import RequestRecorder, WholeSegments
from crawlscope.api.keys.registry import Keys
from crawlscope.api.mcp.http import McpEndpoint, mcp_lifespan
from crawlscope.api.mcp.http import router as mcp_router
from crawlscope.processes.parts import Parts

DOCUMENTS_AT_ONCE = 4
"""Documents that programs bring and that are indexed in this process at the same time; others wait, so that
deliveries find it responsive, and connections to the database."""


def create_app(parts: Parts, stopping: asyncio.Event | None = None) -> FastAPI:
    """Requests that wait, such as MCP calls and live feeds, end at once when `stopping` is set."""
    stopping = stopping or asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with mcp_lifespan(app), events.live_feeds(app, stopping):
            yield

    app = FastAPI(
        title="Crawlscope",
        version=__version__,
        summary="A flight recorder for crawls.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=errors.ANSWERS,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `RequestRecorder` does this
    )
    app.state.parts = parts
    app.state.keys = Keys(parts.database)
    app.state.failed_sign_ins = FailedSignIns()
    app.state.followed_pages = FollowedPages()
    app.state.shared_answers = SharedAnswers()
    app.state.exports = export.Exports()
    app.state.documents = asyncio.Semaphore(DOCUMENTS_AT_ONCE)
    app.state.document_bytes = 0
    app.state.readings = prometheus.Readings()
    app.state.mcp = McpEndpoint(app, stopping)
    for middleware in (
        BodyLimit,
        Guard,
        WholeSegments,
        RequestRecorder,
    ):  # the last one is the first to be asked
        app.add_middleware(middleware)
    errors.install(app)
    for router in (
        webhooks.router,  # the first ones are found first
        index.router,
        crawls.router,
        crawls.ledger,
        export.router,
        index.documents,
        metrics.router,
        events.router,
        watches.router,
        notifications.router,
        keys.router,
        health.router,
        prometheus.router,
        mcp_router,
        *DASHBOARD,
    ):
        app.include_router(router)
    app.mount(STATIC_PREFIX.rstrip("/"), StaticFiles(), name="static")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(request.app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return render(request, "reference.html")

    return app
