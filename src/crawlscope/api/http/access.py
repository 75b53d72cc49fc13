"""Authentication and the limit of a body: all but a few open paths need the API secret, a key whose scope
allows the request, or the cookie of a browser that has signed in with the secret."""

import hmac
import secrets
from hashlib import sha256
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawlscope.api.client import SECRET_HEADER
from crawlscope.api.http.errors import problem, unavailable
from crawlscope.api.http.requests import ENDPOINT_PREFIXES, ENDPOINTS
from crawlscope.api.keys.schemas import KeyScope
from crawlscope.core.errors import DatabaseUnavailable

BEARER = "bearer "
SIGNATURE_PREFIX = "sha256="
SIGN_IN_PATH = "/sign-in"
OPEN_PATHS = ("/health", "/healthz", "/readyz", SIGN_IN_PATH)
STATIC_PREFIX = "/static/"
SESSION_COOKIE = "crawlscope_session"
SESSION_SECONDS = 30 * 86_400
SIGN_IN_BYTES = 16_384
"""Maximum size of the sign-in form, which anybody may send."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
KEYS_PATH = "/api/keys"
SEARCH_PATH = "/api/search"
OWN_SITE = ("same-origin", "none")
"""The values of `Sec-Fetch-Site` in requests from this service's pages, or from the browser's user."""


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


def credentials(headers: Headers) -> list[str]:
    """All values that may be the API secret or a key; one of the headers may be meant for a proxy."""
    authorization = headers.get("authorization", "")
    bearer = authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
    return [each for each in (headers.get(SECRET_HEADER), bearer) if each]


async def may_receive(request: Request) -> bool:
    """Whether the secret or key allows deliveries."""
    given, state = credentials(request.headers), request.app.state
    if any(same_secret(each, state.parts.secret) for each in given):
        return True
    scopes = [await state.keys.scope_of(each) for each in given]
    return KeyScope.RECEIVE in scopes or KeyScope.OPERATE in scopes


def new_session(secret: str) -> str:
    """The value of a cookie that stands for the secret. Another secret ends all sessions."""
    return _sessions(secret).dumps(secrets.token_urlsafe(12))


def is_session(secret: str, cookie: str | None) -> bool:
    try:
        return bool(_sessions(secret).loads(cookie or "", max_age=SESSION_SECONDS))
    except BadData:
        return False


def _sessions(secret: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret, salt="browser session")


def comes_from_own_page(request: Request) -> bool:
    """Whether a page of this service sent the request, and not one of another site (CSRF).

    Browsers say so in `Sec-Fetch-Site`. Over plain HTTP to another host they leave it out, and send `Origin`.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site in OWN_SITE
    try:
        return origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        return False


def is_signed_in(secret: str, request: Request) -> bool:
    """Whether the browser's cookie counts as the secret for this request."""
    if not is_session(secret, request.cookies.get(SESSION_COOKIE)):
        return False
    return request.method in SAFE_METHODS or comes_from_own_page(request)


async def require_access(request: Request) -> None:
    """Raises 401 without a valid credential, and 403 with a key whose scope does not allow the request."""
    given, secret = credentials(request.headers), request.app.state.parts.secret
    if any(same_secret(each, secret) for each in given) or is_signed_in(secret, request):
        return
    scopes = [await request.app.state.keys.scope_of(each) for each in given]
    scope = next(filter(None, scopes), None)
    if scope is None:
        raise _unauthenticated()
    path: str = request.scope["path"]  # a URL is made of headers too
    if path.startswith(KEYS_PATH):
        raise HTTPException(403, "only the API secret manages keys")
    reads = request.method in SAFE_METHODS or path == SEARCH_PATH
    if scope is not KeyScope.OPERATE and not (scope is KeyScope.READ and reads):
        raise HTTPException(403, f"the key's scope is `{scope}`, which does not allow this request")


class Guard:
    """ASGI middleware: the one place that authenticates requests, before anything of a body is read.

    No route can be forgotten: a path that is not listed as open needs a credential, whether a route has it or
    not. The webhook endpoints learn by `request.state.may_receive` whether the credential allows deliveries,
    and authenticate the others by themselves, because a signature needs the body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, path = Request(scope), scope["path"].removesuffix("\n")  # as routes match it
        open_path = path in OPEN_PATHS or f"{path}/".startswith(ENDPOINT_PREFIXES)
        try:
            if path in ENDPOINTS:
                request.state.may_receive = await may_receive(request)
            elif not open_path and not (path.startswith(STATIC_PREFIX) and request.method in SAFE_METHODS):
                await require_access(request)
        except HTTPException as refused:
            await _refusal(request, refused)(scope, receive, send)
            return
        except DatabaseUnavailable as error:
            await unavailable(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyLimit:
    """ASGI middleware: raises a 413 as soon as the body is known to be too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        sign_in = scope["path"].removesuffix("\n") == SIGN_IN_PATH
        limit = SIGN_IN_BYTES if sign_in else request.app.state.parts.settings.max_body_bytes
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message: Message = {}
            if size <= limit:
                message = await receive()
                received += len(message.get("body", b""))
            if max(size, received) > limit:
                raise HTTPException(
                    413,
                    f"the body is larger than {limit} bytes; raise CRAWLSCOPE_MAX_BODY_BYTES to accept it",
                )
            return message

        await self._app(scope, receive_some, send)


def _refusal(request: Request, refused: HTTPException) -> Response:
    """A person is led to the sign-in page, and from there back to the page that was asked for."""
    path = request.url.path
    for_people = "text/html" in request.headers.get("accept", "") and not path.startswith("/api/")
    if refused.status_code == 401 and request.method in SAFE_METHODS and (path == "/" or for_people):
        asked = f"{path}?{request.url.query}" if request.url.query else path
        return RedirectResponse(f"{SIGN_IN_PATH}?next={quote(asked, safe='')}", 303)
    return problem(refused.status_code, refused.detail, refused.headers)


def _unauthenticated() -> HTTPException:
    return HTTPException(
        401,
        f"send the API secret or a key as {SECRET_HEADER} or as a bearer token",
        headers={"WWW-Authenticate": "Bearer"},
    )
