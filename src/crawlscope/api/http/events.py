"""Live feeds over HTTP, as Server-Sent Events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import structlog
from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from crawlscope.api.http.access import require_access
from crawlscope.api.http.parameters import Segment
from crawlscope.core.errors import DatabaseUnavailable, NotFoundError
from crawlscope.core.periodic import in_background
from crawlscope.insights.live import Live
from crawlscope.insights.news import Position

RECONNECT_MS = 2_000
PING_SECONDS = 15
SEND_SECONDS = 30
"""A viewer that takes nothing for so long is disconnected."""

router = APIRouter(tags=["metrics"])
log = structlog.get_logger(__name__)


class Feed(EventSourceResponse):
    """A stream of encoded events with comments in silent times. Any end of it is one to resume from."""

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(until_lost(events), ping=PING_SECONDS, send_timeout=SEND_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("live_viewer_dropped", silent_seconds=SEND_SECONDS)


@router.get("/api/metrics/events", response_class=EventSourceResponse)
async def follow_crawls(request: Request) -> Feed:
    """The newest crawls and those in progress, live."""
    return feed_for(request, await live_of(request).crawls())


@router.get(
    "/api/metrics/crawls/{crawl_id}/events",
    response_class=EventSourceResponse,
    responses={204: {"description": "The crawl is sealed, and nothing is left to report."}},
)
async def follow_crawl(
    crawl_id: Segment,
    request: Request,
    last_event_id: Annotated[
        str | None, Query(description="where to continue; 0 begins with the first page")
    ] = None,
    resumed_from: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """The state of a crawl and its pages as they settle, live."""
    given = resumed_from or last_event_id
    events = await live_of(request).crawl(crawl_id, Position.parse(given) if given else None)
    return feed_for(request, events) if events else Response(status_code=204)


@asynccontextmanager
async def live_feeds(app: FastAPI, stopping: asyncio.Event) -> AsyncIterator[None]:
    """Provides the feeds, and ends them when the service begins to stop: it waits for open connections."""
    live = app.state.live = Live(app.state.parts.insights, encoded)

    async def close_in_time() -> None:
        await stopping.wait()
        live.close()

    async with in_background(live.run(), close_in_time()):
        yield


def encoded(name: str, content: BaseModel, position: Position | None) -> bytes:
    event_id = str(position) if position else None
    return ServerSentEvent(content.model_dump_json(), event=name, id=event_id, retry=RECONNECT_MS).encode()


def live_of(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


def feed_for(request: Request, events: AsyncIterator[bytes]) -> Feed:
    return Feed(_while_allowed(events, request))


async def _while_allowed(events: AsyncIterator[bytes], request: Request) -> AsyncIterator[bytes]:
    """A feed is one request however long it lasts, and its key can be revoked meanwhile."""
    async for event in events:
        try:
            await require_access(request)
        except HTTPException:
            return
        yield event


async def until_lost(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield event
    except (DatabaseUnavailable, NotFoundError) as error:  # a crawl can be deleted as its feed begins
        log.warning("live_feed_ended", reason=str(error))
