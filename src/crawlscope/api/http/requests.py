"""Measures every HTTP request and gives it an id that logs and metrics share."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import perf_counter
from urllib.parse import unquote
from uuid import uuid4

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawlscope.core.service_file import CHANGES_PATH, WEBHOOK_PATH
from crawlscope.core.values import storable
from crawlscope.timing import scope as timing_scope
from crawlscope.timing.store import RequestRecord
from crawlscope.webhooks.refusals import BY_STATUS, Cause, RefusalLog

LONGEST_TEXT = 1_000
HIDDEN = "{token}"

DOORS = (WEBHOOK_PATH, CHANGES_PATH)
"""Have rules of their own, and tokens below them."""
REFUSAL = "refusal"

_OF_A_SENDER = re.compile("webhook", re.IGNORECASE)
"""In the path of what is meant as a delivery, also where the path is not quite that of a door."""
_BELOW_A_DOOR = re.compile(r"(/webhook/+(?:firecrawl|changedetection)/+).+", re.IGNORECASE | re.DOTALL)
"""What stands there is meant as a token, also where no route is."""


class RequestRecorder:
    """ASGI middleware. The token of a delivery URL never reaches the metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # of the request; routes say in it why they refuse a delivery
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
            refused = refused_delivery(scope, status)
            record = _record(scope, request_id, status, began_at, elapsed_ms, refused)
            scope["app"].state.parts.buffer.add_request(record)
            if refused:
                self._refusals.note(refused.cause, status, record.client_ip, refused.reason)


@dataclass(frozen=True)
class RefusedDelivery:
    door: str | None
    """The last part of its path; None for a delivery that came nowhere near one."""
    cause: Cause
    reason: str | None = None
    """What the log may say of it besides."""


def refused_delivery(scope: Scope, status: int) -> RefusedDelivery | None:
    """None for what was taken, and for what is no delivery as far as its path tells."""
    path = unquote(scope["raw_path"].decode("latin-1"))
    if status < 400 or scope["method"] != "POST" or not _OF_A_SENDER.search(path):
        return None
    said = scope["state"].get(REFUSAL)
    if isinstance(said, RefusedDelivery):
        return said
    door = next((each for each in DOORS if path == each or path.startswith(f"{each}/")), None)
    name = door and door.rsplit("/", 1)[1]
    if door is None:
        return RefusedDelivery(None, Cause.WRONG_PATH)
    if status == HTTPStatus.UNAUTHORIZED:
        sent = {header for header, _ in scope["headers"]} & {b"x-api-secret", b"authorization"}
        return RefusedDelivery(name, Cause.WRONG_SECRET if sent else Cause.NO_CREDENTIALS)
    return RefusedDelivery(name, BY_STATUS.get(status, Cause.UNAVAILABLE))


def note_refusal(request: Request, cause: Cause, reason: str | None = None) -> None:
    """Keeps why a delivery is about to be refused, where its status alone does not tell."""
    door = next(each for each in DOORS if request.url.path.startswith(each))
    setattr(request.state, REFUSAL, RefusedDelivery(door.rsplit("/", 1)[1], cause, reason))


def _record(
    scope: Scope,
    request_id: str,
    status: int,
    began_at: datetime,
    elapsed_ms: float,
    refused: RefusedDelivery | None,
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
        extra_metadata={"refused": refused.cause.value, "door": refused.door} if refused else None,
    )


def shown_path(scope: Scope) -> str:
    """The path for logs and metrics: without the token, wherever in it a sender has put that."""
    path = _BELOW_A_DOOR.sub(rf"\1{HIDDEN}", unquote(scope["raw_path"].decode("latin-1")))
    if token := scope["app"].state.parts.settings.receive_token:
        path = path.replace(token.get_secret_value(), HIDDEN)
    return storable(path[:LONGEST_TEXT])
