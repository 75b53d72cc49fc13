"""Every error as JSON with `detail`: what was wrong and what to do, never a traceback."""

import math
from collections.abc import Awaitable, Callable

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from crawlscope.api.http.requests import shown_path
from crawlscope.core.errors import CrawlscopeError, DependencyError, NotFoundError, RemoteRefused, UsageError

RETRY_AFTER_SECONDS = 5
UNREADABLE = "the body cannot be read: send JSON in UTF-8, nested less deeply"

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(DependencyError, dependency_unavailable)
    app.add_exception_handler(RemoteRefused, detail_with(502))
    app.add_exception_handler(NotFoundError, detail_with(404))
    app.add_exception_handler(UsageError, detail_with(422))
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(400, unreadable_body)
    app.add_exception_handler(Exception, unexpected_error)


def unavailable(error: Exception) -> JSONResponse:
    seconds = math.ceil(getattr(error, "retry_after", None) or RETRY_AFTER_SECONDS)
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": str(seconds)})


async def dependency_unavailable(request: Request, error: Exception) -> JSONResponse:
    log.warning("request_failed", path=shown_path(request.scope), reason=str(error))
    return unavailable(error)


def detail_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=status)

    return handle


async def invalid_request(request: Request, error: Exception) -> JSONResponse:
    """Leaves out the input, which can be long or a secret."""
    assert isinstance(error, RequestValidationError)
    issues = [{"loc": issue["loc"], "msg": issue["msg"], "type": issue["type"]} for issue in error.errors()]
    return JSONResponse({"detail": jsonable_encoder(issues)}, status_code=422)


async def unreadable_body(request: Request, error: Exception) -> Response:
    """FastAPI's own 400 does not say what it could not read; a 400 without a cause comes from a route."""
    assert isinstance(error, HTTPException)
    from_fastapi = error.__cause__ is not None
    return await http_exception_handler(request, HTTPException(400, UNREADABLE) if from_fastapi else error)


async def unexpected_error(request: Request, error: Exception) -> JSONResponse:
    status = 500 if not isinstance(error, CrawlscopeError) else 422
    return JSONResponse({"detail": "unexpected error; the service's log has it"}, status_code=status)
