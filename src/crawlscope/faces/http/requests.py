"""Measures every HTTP request and gives it an id that logs and metrics share."""

import re
from datetime import UTC, datetime
from time import perf_counter
from urllib.parse import unquote
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawlscope.database.values import storable
from crawlscope.timing import scope as timing_scope
from crawlscope.timing.store import RequestRecord

LONGEST_TEXT = 1_000
HIDDEN = "{token}"

_BELOW_A_DOOR = re.compile(r"(/webhook/+(?:firecrawl|changedetection)/+).+", re.IGNORECASE | re.DOTALL)
"""What stands there is meant as a token, also where no route is."""


class RequestRecorder:
    """ASGI middleware. The token of a delivery URL never reaches the metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, status = str(uuid4()), 500
        began_at, began = datetime.now(UTC), perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            with timing_scope(request_id=request_id):
                await self._app(scope, receive, send_on)
        finally:
            elapsed_ms = (perf_counter() - began) * 1000
            record = _record(scope, request_id, status, began_at, elapsed_ms)
            scope["app"].state.parts.buffer.add_request(record)


def _record(
    scope: Scope, request_id: str, status: int, began_at: datetime, elapsed_ms: float
) -> RequestRecord:
    headers = dict(scope["headers"])
    client = scope.get("client")
    return RequestRecord(
        timestamp=began_at,
        method=scope["method"][:10],
        path=shown_path(scope),
        status_code=status,
        duration_ms=elapsed_ms,
        request_id=request_id,
        client_ip=client[0] if client else None,
        user_agent=headers.get(b"user-agent", b"").decode("latin-1")[:LONGEST_TEXT] or None,
    )


def shown_path(scope: Scope) -> str:
    """The path for logs and metrics: without the token, wherever in it a sender has put that."""
    path = _BELOW_A_DOOR.sub(rf"\1{HIDDEN}", unquote(scope["raw_path"].decode("latin-1")))
    if token := scope["app"].state.parts.settings.receive_token:
        path = path.replace(token.get_secret_value(), HIDDEN)
    return storable(path[:LONGEST_TEXT])
