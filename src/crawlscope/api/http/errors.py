"""Every error as problem details (RFC 9457): `detail` says what to do. No tracebacks."""

import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from crawlscope.api.http.requests import SECURITY_HEADERS, shown_path
from crawlscope.core.errors import (
    CrawlscopeError,
    DependencyError,
    NotFoundError,
    PageError,
    RemoteRefused,
    UsageError,
)
from crawlscope.core.settings import VALIDATOR_PREFIX

RETRY_AFTER_SECONDS = 5
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
UNREADABLE = "the body cannot be read: send JSON in UTF-8, nested less deeply"


class Issue(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    type: str
    """Always `about:blank`: the status says what kind of problem it is."""
    title: str
    status: int
    detail: str | list[Issue]


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body cannot be read.",
        401: "The secret or key is missing or wrong.",
        403: "The scope of the key does not allow the request.",
        404: "There is no such crawl, page or entry.",
        413: "The body is too large.",
        415: "The body has another content type.",
        422: "A parameter or field is invalid.",
        502: "Firecrawl or changedetection.io refused.",
        503: "A dependency is unavailable. `Retry-After` says when to try again.",
    }.items()
}
"""The errors that any endpoint may answer."""

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(DependencyError, dependency_unavailable)
    app.add_exception_handler(RemoteRefused, detail_with(502))
    app.add_exception_handler(NotFoundError, detail_with(404))
    app.add_exception_handler(UsageError, detail_with(422))
    app.add_exception_handler(PageError, detail_with(422))
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, unexpected_error)
    describe = app.openapi

    def described() -> dict[str, Any]:
        """FastAPI describes errors with the media type of results."""
        schema = describe()
        for operation in (each for path in schema["paths"].values() for each in path.values()):
            for status in map(str, ANSWERS):
                content = operation["responses"].get(status, {}).get("content", {})
                if "application/json" in content:  # FastAPI keeps the description, which is described once
                    content[ProblemResponse.media_type] = content.pop("application/json")
        return schema

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's documentation does it


def problem(status: int, detail: object, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return ProblemResponse(content, status_code=status, headers=headers)


def unavailable(error: Exception) -> Response:
    seconds = math.ceil(getattr(error, "retry_after", None) or RETRY_AFTER_SECONDS)
    return problem(503, str(error), {"Retry-After": str(seconds)})


async def dependency_unavailable(request: Request, error: Exception) -> Response:
    log.warning("request_failed", path=shown_path(request.scope), reason=str(error))
    return unavailable(error)


def detail_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return problem(status, str(error))

    return handle


async def invalid_request(request: Request, error: Exception) -> Response:
    """Leaves out the input, which can be long or a secret."""
    assert isinstance(error, RequestValidationError)
    issues = [{"loc": each["loc"], "msg": issue_words(each), "type": each["type"]} for each in error.errors()]
    return problem(422, jsonable_encoder(issues))


def issue_words(issue: Mapping[str, Any]) -> str:
    """Pydantic's, but plainer for a text that is missing."""
    if issue["type"] == "string_too_short" and issue["ctx"]["min_length"] == 1:
        return "must not be empty"
    return str(issue["msg"]).removeprefix(VALIDATOR_PREFIX)


async def refused(request: Request, error: Exception) -> Response:
    """FastAPI's own 400 does not say what it could not read; a 400 without a cause comes from a route."""
    assert isinstance(error, HTTPException)
    from_fastapi = error.status_code == 400 and error.__cause__ is not None
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": _allowed(request)}
    return problem(error.status_code, UNREADABLE if from_fastapi else error.detail, headers)


def _allowed(request: Request) -> str:
    """The methods of the path. Starlette names those of the first route with this path."""
    asked = [(method, {**request.scope, "method": method}) for method in METHODS]
    routes = request.app.router.routes
    return ", ".join(
        method for method, scope in asked if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


async def unexpected_error(request: Request, error: Exception) -> Response:
    status = 500 if not isinstance(error, CrawlscopeError) else 422
    # This answer is made outside all middleware.
    return problem(status, "unexpected error; the service's log has it", SECURITY_HEADERS)
