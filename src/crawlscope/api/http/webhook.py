"""The webhook door."""

from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import JSONResponse

from crawlscope.api.http.access import carries_secret, signs
from crawlscope.api.http.bodies import read_body, require_disk, require_json, require_token
from crawlscope.api.http.errors import unavailable
from crawlscope.api.http.parts import ServiceParts
from crawlscope.api.http.requests import note_refusal
from crawlscope.api.http.segments import Segment
from crawlscope.core.errors import DatabaseUnavailable, DependencyError
from crawlscope.core.service_file import WEBHOOK_PATH
from crawlscope.processes.parts import Parts
from crawlscope.webhooks.acceptance import accept_delivery
from crawlscope.webhooks.payload import MalformedDelivery, UnreadableDelivery
from crawlscope.webhooks.refusals import Cause

SIGNATURE_HEADER = "X-Firecrawl-Signature"

log = structlog.get_logger(__name__)
router = APIRouter(tags=["webhook"])


@router.post(WEBHOOK_PATH, status_code=202)
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
        if x_firecrawl_signature:
            note_refusal(request, Cause.NO_SIGNING_SECRET)
        raise HTTPException(401, _who_may_deliver(parts))
    body = await read_body(request)
    if not known and not signs(x_firecrawl_signature, _reveal(hmac_secret), body):
        note_refusal(request, Cause.BAD_SIGNATURE)
        raise HTTPException(401, f"the {SIGNATURE_HEADER} does not match the body")
    return await _take(request, parts, body)


@router.post(f"{WEBHOOK_PATH}/{{token}}", status_code=202)
async def deliver_by_url(token: Segment, request: Request, parts: ServiceParts) -> JSONResponse:
    """The same for senders that can neither sign nor send headers: the token in the URL lets them in."""
    require_token(token, request, parts)
    return await _take(request, parts, await read_body(request))


async def _take(request: Request, parts: Parts, body: bytes) -> JSONResponse:
    require_json(request)
    try:
        require_disk(parts)
        answer = await accept_delivery(parts.database, body, datetime.now(UTC))
    except UnreadableDelivery as error:
        raise HTTPException(400, str(error)) from None
    except MalformedDelivery as error:
        parts.refusals.add(body)
        raise HTTPException(422, str(error)) from None
    except DependencyError as error:
        note_refusal(request, Cause.UNAVAILABLE, str(error))
        parts.refusals.add(body)
        return unavailable(error)
    except Exception:
        log.exception("delivery_not_kept")
        parts.refusals.add(body)
        return unavailable(DatabaseUnavailable("the delivery could not be kept; the log says why"))
    return JSONResponse(answer, status_code=202)


def _who_may_deliver(parts: Parts) -> str:
    ways = ["the API secret (X-API-Secret)"]
    if parts.settings.firecrawl_webhook_secret:
        ways.append(f"a valid {SIGNATURE_HEADER}")
    return f"a delivery needs {' or '.join(ways)}"


def _reveal(secret: Any) -> str:
    return str(secret.get_secret_value())
