"""What routes take: the parts of the service, segments of the path, slices of a list, times."""

from datetime import datetime
from typing import Annotated, cast
from urllib.parse import unquote

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from crawlscope.processes.parts import Parts
from crawlscope.sessions.fold import parse_moment

MAX_OFFSET = 2**63 - 1
HOURS_OF_A_YEAR = 8_760


async def of_request(request: Request) -> Parts:
    """Async, because FastAPI would call a plain function in a thread."""
    return cast(Parts, request.app.state.parts)


def moment(value: object) -> datetime:
    """An unescaped `+` arrives as a blank. Raises `ValueError`."""
    parsed = parse_moment(value.strip().replace(" ", "+") if isinstance(value, str) else value)
    if parsed is None:
        raise ValueError("give a time in ISO 8601, such as 2025-01-31T12:00:00Z")
    return parsed


ServiceParts = Annotated[Parts, Depends(of_request)]
Segment = Annotated[str, BeforeValidator(unquote)]
"""A path parameter such as a crawl's id; an escaped slash is part of it."""
Limit = Annotated[int, Query(ge=1, le=1_000)]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]
Hours = Annotated[int, Query(ge=1, le=HOURS_OF_A_YEAR, description="only the last hours, this many")]
Moment = Annotated[datetime, BeforeValidator(moment)]
Since = Annotated[
    Moment | None,
    Query(description="this time or later; ISO 8601, UTC if it names no zone"),
]
Until = Annotated[
    Moment | None,
    Query(description="before this time; ISO 8601, UTC if it names no zone"),
]
UrlPart = Annotated[str | None, Query(description="any part of the URL")]


class WholeSegments:
    """ASGI middleware: leaves `%2F` and `%25` in the path escaped, so that a `Segment` is read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw_path = scope["raw_path"].decode("latin-1")
            for escaped in ("%25", "%2F", "%2f"):
                raw_path = raw_path.replace(escaped, f"%25{escaped[1:].upper()}")
            scope["path"] = unquote(raw_path)
        await self._app(scope, receive, send)
