"""The webhook door."""

import shutil
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from crawlscope.errors import DatabaseUnavailable, DependencyError
from crawlscope.faces.http.access import carries_secret
from crawlscope.faces.http.errors import unavailable
from crawlscope.faces.http.parts import ServiceParts
from crawlscope.parts import Parts
from crawlscope.receive.acceptance import accept_delivery
from crawlscope.receive.payload import MalformedDelivery, UnreadableDelivery
from crawlscope.receive.signature import same_secret, signs

SIGNATURE_HEADER = "X-Firecrawl-Signature"

log = structlog.get_logger(__name__)
router = APIRouter(tags=["webhook"])


@router.post("/api/webhook/firecrawl", status_code=202)
async def deliver(
    request: Request,
    parts: ServiceParts,
    x_api_secret: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
    x_firecrawl_signature: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Takes one Firecrawl event in. 202 means: committed to disk, with its jobs."""
    known = carries_secret(parts.secret, x_api_secret, authorization)
    hmac_secret = parts.settings.firecrawl_webhook_secret
    if not known and not (hmac_secret and x_firecrawl_signature):
        raise HTTPException(401, _who_may_deliver(parts))
    body = await _body(request, parts.settings.max_body_bytes)
    if not known and not signs(x_firecrawl_signature, _reveal(hmac_secret), body):
        raise HTTPException(401, f"the {SIGNATURE_HEADER} does not match the body")
    return await _take(request, parts, body)


@router.post("/api/webhook/firecrawl/{token}", status_code=202)
async def deliver_by_url(token: str, request: Request, parts: ServiceParts) -> JSONResponse:
    """The same for senders that can neither sign nor send headers: the token in the URL lets them in."""
    expected = parts.settings.receive_token
    if expected is None or not same_secret(token, expected.get_secret_value()):
        raise HTTPException(401, "this delivery URL is not valid")
    return await _take(request, parts, await _body(request, parts.settings.max_body_bytes))


async def _take(request: Request, parts: Parts, body: bytes) -> JSONResponse:
    _require_json(request)
    try:
        _require_disk(parts)
        acceptance = await accept_delivery(parts.database, body, datetime.now(UTC))
    except UnreadableDelivery as error:
        raise HTTPException(400, str(error)) from None
    except MalformedDelivery as error:
        parts.refusals.add(body)
        raise HTTPException(422, str(error)) from None
    except DependencyError as error:
        log.warning("delivery_refused", reason=str(error))
        parts.refusals.add(body)
        return unavailable(error)
    except Exception:
        log.exception("delivery_refused")
        parts.refusals.add(body)
        return unavailable(DatabaseUnavailable("the delivery could not be kept; the log says why"))
    return JSONResponse(acceptance.answer, status_code=202)


async def _body(request: Request, limit: int) -> bytes:
    """Stops reading as soon as the body is known to be too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise HTTPException(400, "the body ended before it was complete") from None
    return bytes(body)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        413, f"the body is larger than {limit} bytes; raise CRAWLSCOPE_MAX_BODY_BYTES to accept it"
    )


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HTTPException(415, f"send application/json, not {kind[:100]}")


def _require_disk(parts: Parts) -> None:
    """A nearly full disk must not be filled: the database would stop, not only the door."""
    settings = parts.settings
    if settings.embedded_database:
        free = shutil.disk_usage(settings.data_dir).free
        if free < settings.min_free_disk_bytes:
            raise DatabaseUnavailable(
                f"only {free} bytes are free in {settings.data_dir}: make room, then send again"
            )


def _who_may_deliver(parts: Parts) -> str:
    ways = ["the API secret (X-API-Secret)"]
    if parts.settings.firecrawl_webhook_secret:
        ways.append(f"a valid {SIGNATURE_HEADER}")
    return f"a delivery needs {' or '.join(ways)}"


def _reveal(secret: Any) -> str:
    return str(secret.get_secret_value())
