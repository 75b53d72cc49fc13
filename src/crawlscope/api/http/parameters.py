"""Parameters of routes: the parts of the service, segments of the path, slices of a list, times."""

from datetime import datetime
from typing import Annotated, cast
from urllib.parse import unquote

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator

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
