"""Every HTTP request: its measurement, id and security headers, and the record of refused deliveries."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import perf_counter
from urllib.parse import unquote
from uuid import uuid4

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawlscope.api.keys.registry import PREFIX
from crawlscope.core.service_file import CHANGES_PATH, WEBHOOK_PATH
from crawlscope.core.values import storable
from crawlscope.timing import scope as timing_scope
from crawlscope.timing.store import RequestRecord
from crawlscope.timing.telemetry import conventions, meters, traces
from crawlscope.timing.telemetry.traces import Kind, Span, Trace
from crawlscope.webhooks.refusals import BY_STATUS, Cause, RefusalLog

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every answer without its own: it is data for a program, not a page of a site."""
_SECURITY = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

MAX_TEXT_LENGTH = 1_000
UNTRACED = frozenset({"/healthz", "/readyz", "/health", "/metrics"})
"""Monitoring requests these all the time."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HIDDEN = "{token}"

ENDPOINTS = (WEBHOOK_PATH, CHANGES_PATH)
"""The webhook endpoints, which authenticate in their own way; a token may follow in the path."""
ENDPOINT_PREFIXES = tuple(f"{endpoint}/" for endpoint in ENDPOINTS)
REFUSAL = "refusal"

EVENT_STREAM = b"text/event-stream"
"""Such an answer lasts as long as its viewer: its duration is the time to its beginning."""

_OF_A_SENDER = re.compile("webhook", re.IGNORECASE)
"""In the path of a request that is meant as a delivery, even if the path is not quite that of an endpoint."""
_TOKEN_IN_PATH = re.compile(r"(/webhook/+(?:firecrawl|changedetection)/+).+", re.IGNORECASE | re.DOTALL)
"""The end of such a path is meant as a token, even if no route takes it."""
_KEY = re.compile(rf"{PREFIX}[\w-]+")


def endpoint_of(path: str) -> str | None:
    """`firecrawl` or `changedetection`; None for a path of neither webhook endpoint."""
    for endpoint in ENDPOINTS:
        if f"{path}/".startswith(f"{endpoint}/"):
            return endpoint.rsplit("/", 1)[1]
    return None


class RequestRecorder:
    """ASGI middleware. The token of a delivery URL never reaches the metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # routes note there why they refuse a delivery
        request_id, status, trace = str(uuid4()), 500, None
        began_at, began = datetime.now(UTC), perf_counter()
        live_after_ms = None

        async def send_on(message: Message) -> None:
            nonlocal status, live_after_ms
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                if scope["method"] == "GET" and any(v.startswith(EVENT_STREAM) for _, v in headers):
                    live_after_ms = (perf_counter() - began) * 1000
                named = {name.lower() for name, _ in headers}
                headers += [pair for pair in _SECURITY if pair[0] not in named]
                headers.append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            with traces.request(_traceparent(scope)) as trace, timing_scope(request_id=request_id):
                await self._app(scope, receive, send_on)
        finally:
            elapsed_ms = live_after_ms or (perf_counter() - began) * 1000
            refused = refused_delivery(scope, status)
            record = _record(scope, request_id, status, began_at, elapsed_ms, refused)
            scope["app"].state.parts.buffer.add_request(record)
            _monitor(scope, status, began_at, elapsed_ms / 1000, trace)
            if refused:
                meters.count(conventions.REFUSALS, refused.cause)
                self._refusals.note(refused.cause, status, record.client_ip, refused.reason)


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


def _monitor(scope: Scope, status: int, began_at: datetime, seconds: float, trace: Trace | None) -> None:
    route = getattr(scope.get("route"), "path", conventions.OTHER)
    method = scope["method"] if scope["method"] in METHODS else conventions.OTHER
    meters.observe(conventions.REQUESTS, seconds, labels=(method, route, str(status)))
    if trace and route not in UNTRACED:
        began = began_at.timestamp()
        span = Span(
            f"{method} {route}",
            trace.span,
            began,
            began + seconds,
            parent=traces.parsed(_traceparent(scope)),
            kind=Kind.SERVER,
            attributes=conventions.request_attributes(method, route, status),
            error=str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
        )
        traces.export(span)


def _traceparent(scope: Scope) -> str | None:
    given = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
    return given.decode("latin-1") if given else None


@dataclass(frozen=True)
class RefusedDelivery:
    endpoint: str | None
    """See `endpoint_of`."""
    cause: Cause
    reason: str | None = None
    """A reason for the log, beside the cause."""


def refused_delivery(scope: Scope, status: int) -> RefusedDelivery | None:
    """None for an accepted delivery, and for a request that is no delivery by its path."""
    path = unquote(scope["raw_path"].decode("latin-1"))
    if status < 400 or scope["method"] != "POST" or not _OF_A_SENDER.search(path):
        return None
    noted = scope["state"].get(REFUSAL)
    if isinstance(noted, RefusedDelivery):
        return noted
    endpoint = endpoint_of(path)
    if endpoint is None:
        return RefusedDelivery(None, Cause.WRONG_PATH)
    if status == HTTPStatus.UNAUTHORIZED:
        sent = {header for header, _ in scope["headers"]} & {b"x-api-secret", b"authorization"}
        return RefusedDelivery(endpoint, Cause.WRONG_SECRET if sent else Cause.NO_CREDENTIALS)
    return RefusedDelivery(endpoint, BY_STATUS.get(status, Cause.UNAVAILABLE))


def note_refusal(request: Request, cause: Cause, reason: str | None = None) -> None:
    """Records the cause of a refused delivery, if its status alone does not show it."""
    setattr(request.state, REFUSAL, RefusedDelivery(endpoint_of(request.url.path), cause, reason))


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
        user_agent=headers.get(b"user-agent", b"").decode("latin-1")[:MAX_TEXT_LENGTH] or None,
        extra_metadata={"refused": refused.cause.value, "door": refused.endpoint} if refused else None,
    )


def shown_path(scope: Scope) -> str:
    """The path for logs and metrics, without the token or a key, wherever in the path a sender has put it."""
    path = _TOKEN_IN_PATH.sub(rf"\1{HIDDEN}", unquote(scope["raw_path"].decode("latin-1")))
    path = _KEY.sub(HIDDEN, path)
    if token := scope["app"].state.parts.settings.receive_token:
        path = path.replace(token.get_secret_value(), HIDDEN)
    return storable(path[:MAX_TEXT_LENGTH])
