"""Every error as JSON with `detail`: what was wrong and what to do, never a traceback."""

import math

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


def unavailable(error: Exception) -> JSONResponse:
    seconds = math.ceil(getattr(error, "retry_after", None) or RETRY_AFTER_SECONDS)
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": str(seconds)})


def install(app: FastAPI) -> None:
    app.add_exception_handler(DependencyError, _unavailable)
    app.add_exception_handler(RemoteRefused, _refused_there)
    app.add_exception_handler(NotFoundError, _not_found)
    app.add_exception_handler(UsageError, _usage)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(400, _unreadable)
    app.add_exception_handler(Exception, _unexpected)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    log.warning("dependency_unavailable", path=shown_path(request.scope), reason=str(error))
    return unavailable(error)


async def _refused_there(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=502)


async def _not_found(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=404)


async def _usage(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=422)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Without the input: it can be long, or a secret."""
    assert isinstance(error, RequestValidationError)
    issues = [{"loc": issue["loc"], "msg": issue["msg"], "type": issue["type"]} for issue in error.errors()]
    return JSONResponse({"detail": jsonable_encoder(issues)}, status_code=422)


async def _unreadable(request: Request, error: Exception) -> Response:
    """FastAPI does not say what it could not read; who refuses on purpose does."""
    assert isinstance(error, HTTPException)
    stumbled = error.__cause__ is not None
    return await http_exception_handler(request, HTTPException(400, UNREADABLE) if stumbled else error)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    status = 500 if not isinstance(error, CrawlscopeError) else 422
    return JSONResponse({"detail": "unexpected error; the service's log has it"}, status_code=status)
