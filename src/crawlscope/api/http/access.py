"""Authentication and the limit of a body: every path except a few open ones needs the API secret."""

import hmac
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawlscope.api.client import SECRET_HEADER
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.api.http.requests import ENDPOINT_PREFIXES

BEARER = "bearer "
SIGNATURE_PREFIX = "sha256="
OPEN_PATHS = ("/health", "/healthz", "/readyz")


def same_secret(given: str | None, expected: str) -> bool:
    """Compares in constant time; nothing given is never right."""
    if not given:
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


def signs(signature: str | None, secret: str, body: bytes) -> bool:
    """Whether `sha256=<hex>` is the body's HMAC-SHA256 under the secret."""
    if not signature or not signature.startswith(SIGNATURE_PREFIX):
        return False
    expected = hmac.new(secret.encode(), body, sha256).hexdigest()
    return same_secret(signature.removeprefix(SIGNATURE_PREFIX), expected)


def carries_secret(secret: str, header: str | None, authorization: str | None) -> bool:
    if same_secret(header, secret):
        return True
    if authorization and authorization[: len(BEARER)].lower() == BEARER:
        return same_secret(authorization[len(BEARER) :].strip(), secret)
    return False


async def require_secret(
    parts: ServiceParts,
    x_api_secret: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> None:
    if not carries_secret(parts.secret, x_api_secret, authorization):
        raise _unauthenticated()


Authenticated = Depends(require_secret)


class Guard:
    """ASGI middleware: without it, FastAPI reads a body of any size before it checks `Authenticated`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        parts, headers, path = request.app.state.parts, request.headers, scope["path"]
        open_path = path in OPEN_PATHS or f"{path}/".startswith(ENDPOINT_PREFIXES)
        if open_path or carries_secret(
            parts.secret, headers.get(SECRET_HEADER), headers.get("authorization")
        ):
            await self._app(scope, _limited(receive, headers, parts.settings.max_body_bytes), send)
        else:
            refusal = await http_exception_handler(request, _unauthenticated())
            await refusal(scope, receive, send)


def _unauthenticated() -> HTTPException:
    return HTTPException(
        401,
        f"send the API secret as {SECRET_HEADER} or as a bearer token",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _limited(receive: Receive, headers: Headers, limit: int) -> Receive:
    """Raises a 413 as soon as the body is known to be too large."""
    announced = headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    received = 0
    too_large = HTTPException(
        413, f"the body is larger than {limit} bytes; raise CRAWLSCOPE_MAX_BODY_BYTES to accept it"
    )

    async def receive_some() -> Message:
        nonlocal received
        if size > limit:
            raise too_large
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    return receive_some
