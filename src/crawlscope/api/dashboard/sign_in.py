"""Signing in with the API secret or a one-time link, and signing out."""

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from crawlscope.api.dashboard.rendering import page_router, render
from crawlscope.api.http.access import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    SIGN_IN_PATH,
    comes_from_own_page,
    new_session,
    same_secret,
)
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.secrets import SECRET_FILE, use_sign_in_token
from crawlscope.processes.parts import Parts

router = page_router()
HOME = "/"
MAX_FAILURES = 10
"""The maximum for one address in a minute. Later attempts are refused, right or wrong; clients with a key or
the secret are not."""
MAX_FAILURES_OF_ALL = 100
"""The maximum for all addresses from which nobody has signed in, because one attacker can have many."""


class FailedSignIns:
    """Counts in this process alone, which allows its part of the limit of all processes of the service.
    Attackers cannot lock out who signs in again, or with a link."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._known = set[str]()

    async def are_too_many(self, request: Request) -> bool:
        address = _address(request)
        if not await self._limiter.test(_part_of(MAX_FAILURES, request), address):
            return True
        of_all = _part_of(MAX_FAILURES_OF_ALL, request)
        return address not in self._known and not await self._limiter.test(of_all)

    async def add(self, request: Request) -> None:
        await self._limiter.hit(_part_of(MAX_FAILURES, request), _address(request))
        if _address(request) not in self._known:
            await self._limiter.hit(_part_of(MAX_FAILURES_OF_ALL, request))

    def know(self, request: Request) -> None:
        """Somebody has signed in from there."""
        self._known.add(_address(request))


def _part_of(failures: int, request: Request) -> RateLimitItemPerMinute:
    parts: Parts = request.app.state.parts
    return RateLimitItemPerMinute(max(1, failures // parts.settings.api_processes))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


@router.get(SIGN_IN_PATH)
async def show_sign_in(request: Request, parts: ServiceParts, next: str = HOME, token: str = "") -> Response:  # noqa: A002
    """The form. A token is used by a second step only, not by programs that look at links."""
    return _form(request, parts, next, token)


@router.post(SIGN_IN_PATH)
async def sign_in(
    request: Request,
    parts: ServiceParts,
    secret: Annotated[str, Form()] = "",
    token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = HOME,  # noqa: A002
) -> Response:
    if not comes_from_own_page(request):
        return _form(
            request, parts, next, problem="The form was sent by another page. Sign in here.", status=403
        )
    failures: FailedSignIns = request.app.state.failed_sign_ins
    if not token and await failures.are_too_many(request):  # nobody guesses a token
        problem = (
            "There were too many failed attempts. Wait a minute, or use a link: `crawlscope up` prints it."
        )
        return _form(request, parts, next, problem=problem, status=429)
    if token and not use_sign_in_token(parts.settings.data_dir, token):
        problem = "This link was used before, or is older than an hour. Enter the API secret instead."
        return _form(request, parts, next, problem=problem, status=401)
    if not token and not same_secret(secret.strip(), parts.secret):
        await failures.add(request)
        return _form(request, parts, next, problem="This is not the API secret.", status=401)
    failures.know(request)
    answer = RedirectResponse(_local(next), 303)
    answer.set_cookie(
        SESSION_COOKIE,
        new_session(parts.secret),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/sign-out")
async def sign_out() -> Response:
    answer = RedirectResponse(SIGN_IN_PATH, 303)
    answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return answer


def _form(
    request: Request,
    parts: Parts,
    next_path: str,
    token: str = "",
    problem: str | None = None,
    status: int = 200,
) -> Response:
    where = None if parts.settings.api_secret else str(parts.settings.data_dir / SECRET_FILE)
    return render(
        request,
        "sign_in.html",
        http_status=status,
        next=_local(next_path),
        token=token,
        problem=problem,
        secret_file=where,
    )


def _local(path: str) -> str:
    """The path if it is one of this service: a link must not lead to another site after the sign-in."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_local else HOME
