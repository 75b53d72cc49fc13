"""The webhook endpoints, of Firecrawl and of changedetection.io."""

import shutil
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from crawlscope.api.http.access import same_secret, signs
from crawlscope.api.http.errors import unavailable
from crawlscope.api.http.parameters import Segment, ServiceParts
from crawlscope.api.http.requests import note_refusal
from crawlscope.api.keys.schemas import KeyScope
from crawlscope.changes.acceptance import Rescraping, accept_change
from crawlscope.core.errors import DatabaseUnavailable, DependencyError
from crawlscope.core.service_file import CHANGES_PATH, WEBHOOK_PATH
from crawlscope.core.vocabulary import Engine
from crawlscope.processes.parts import Parts
from crawlscope.webhooks.payload import (
    CRAWL_FAMILIES,
    FAMILIES,
    MAX_ID_LENGTH,
    MalformedDelivery,
    UnreadableDelivery,
)
from crawlscope.webhooks.refusals import Cause

SIGNATURE_HEADER = "X-Firecrawl-Signature"

log = structlog.get_logger(__name__)
router = APIRouter()


def _events(families: set[str], data: dict[str, Any]) -> dict[str, Any]:
    return {
        "required": ["id"],
        "properties": {
            "type": {"type": "string", "pattern": _types(families)},
            "id": {
                "type": ["string", "integer"],
                "minLength": 1,
                "maxLength": MAX_ID_LENGTH,
                "description": "v0: `jobId`",
            },
            "webhookId": {"description": "a UUID for each event"},
            "success": {"description": "false for a failed page"},
            "data": data,
            "error": {},
            "metadata": {"type": ["object", "null"], "description": "the request's `webhook.metadata`"},
        },
    }


def _types(families: set[str]) -> str:
    return rf"^({'|'.join(sorted(families))})\.[\s\S]"


DELIVERY_BODY = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string", "minLength": 1, "examples": ["crawl.page"]}},
    "anyOf": [
        _events(CRAWL_FAMILIES, {"type": ["array", "object", "null"], "items": {"type": "object"}}),
        _events(FAMILIES - CRAWL_FAMILIES, {}),
        {
            "description": "of an unknown type: kept as it is, and otherwise ignored",
            "properties": {"type": {"type": "string", "not": {"pattern": _types(FAMILIES)}}},
        },
    ],
}
CHANGE_BODY = {
    "type": "object",
    "required": ["watch_url"],
    "properties": {
        "watch_url": {"type": "string", "minLength": 1, "examples": ["https://docs.example.com/page"]},
        "watch_id": {},
        "diff_summary": {},
        "snapshot_url": {},
    },
}
SIGNATURE = {
    "name": SIGNATURE_HEADER.lower(),
    "in": "header",
    "required": False,
    "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": SIGNATURE_HEADER},
}


def _of(body: dict[str, Any]) -> dict[str, Any]:
    """The routes read their bodies themselves: FastAPI cannot know what is in them."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}


class ChangeTaken(BaseModel):
    status: str
    change_id: UUID
    crawl_id: str | None


class PlainRoute(APIRoute):
    """FastAPI only describes it: the endpoint gets the request as it is, which takes half of the time."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


async def deliver(request: Request) -> Response:
    """Accepts one Firecrawl event. 202 means that it is committed to disk, with its jobs."""
    parts: Parts = request.app.state.parts
    if request.state.may_receive:
        return await _accept_delivery(request, parts, await _body(request))
    signing_secret = parts.settings.firecrawl_webhook_secret
    signature = request.headers.get(SIGNATURE_HEADER)
    if not (signing_secret and signature):
        if signature:
            note_refusal(request, Cause.NO_SIGNING_SECRET)
        or_signed = f" or a valid {SIGNATURE_HEADER}" if signing_secret else ""
        raise HTTPException(401, f"a delivery needs the API secret or a key (X-API-Secret){or_signed}")
    body = await _body(request)
    if not signs(signature, signing_secret.get_secret_value(), body):
        note_refusal(request, Cause.BAD_SIGNATURE)
        raise HTTPException(401, f"the {SIGNATURE_HEADER} does not match the body")
    return await _accept_delivery(request, parts, body)


router.add_api_route(
    WEBHOOK_PATH,
    deliver,
    methods=["POST"],
    status_code=202,
    tags=["webhook"],
    openapi_extra=_of(DELIVERY_BODY) | {"parameters": [SIGNATURE]},
    route_class_override=PlainRoute,
)


@router.post(
    f"{WEBHOOK_PATH}/{{token}}",
    summary="Deliver with a token in the URL",
    status_code=202,
    tags=["webhook"],
    openapi_extra=_of(DELIVERY_BODY),
)
async def deliver_by_url(token: Segment, request: Request, parts: ServiceParts) -> Response:
    """The same for senders that can neither sign nor send headers: the URL carries the token."""
    await _require_token(token, request, parts)
    return await _accept_delivery(request, parts, await _body(request))


@router.post(
    CHANGES_PATH,
    summary="Report a change",
    status_code=202,
    tags=["changes"],
    openapi_extra=_of(CHANGE_BODY),
)
async def take_change(request: Request, parts: ServiceParts) -> ChangeTaken:
    """Records the change and scrapes its page again. 202 means that it is committed to disk."""
    if not request.state.may_receive:
        raise HTTPException(401, "a change needs the API secret or a key")
    return await _accept_change(request, parts)


@router.post(
    f"{CHANGES_PATH}/{{token}}",
    summary="Report a change with a token in the URL",
    status_code=202,
    tags=["changes"],
    openapi_extra=_of(CHANGE_BODY),
)
async def take_change_by_url(token: Segment, request: Request, parts: ServiceParts) -> ChangeTaken:
    """The same with the token in the URL in place of the secret."""
    await _require_token(token, request, parts)
    return await _accept_change(request, parts)


async def _require_token(token: str, request: Request, parts: Parts) -> None:
    """The token of the settings, or a key that can do nothing else, because URLs end up in logs of others."""
    expected = parts.settings.receive_token
    if expected is not None and same_secret(token, expected.get_secret_value()):
        return
    if await request.app.state.keys.scope_of(token) is not KeyScope.RECEIVE:
        note_refusal(request, Cause.WRONG_TOKEN if expected else Cause.NO_TOKEN)
        raise HTTPException(401, "this delivery URL is not valid")


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "the body ended before it was complete") from None


async def _accept_delivery(request: Request, parts: Parts, body: bytes) -> Response:
    _require_json(request)
    try:
        _require_disk(parts)
        answer = await parts.acceptance.accept(body, datetime.now(UTC))
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
        log.exception("delivery_storage_failed")
        parts.refusals.add(body)
        return unavailable(DatabaseUnavailable("the delivery could not be stored; see the service's log"))
    return JSONResponse(answer, status_code=202)


async def _accept_change(request: Request, parts: Parts) -> ChangeTaken:
    body = await _body(request)
    _require_json(request)
    _require_disk(parts)
    engine = Engine.FIRECRAWL if parts.settings.firecrawl_url else Engine.BUILTIN
    rescraping = Rescraping(engine, parts.settings.allow_private_targets)
    try:
        accepted = await accept_change(parts.database, body, datetime.now(UTC), rescraping)
    except UnreadableDelivery as error:
        raise HTTPException(400, str(error)) from None
    return ChangeTaken(**vars(accepted))


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HTTPException(415, f"send application/json, not {kind[:100]}")


def _require_disk(parts: Parts) -> None:
    """Refuses a delivery when the disk is nearly full, because a full disk would stop the database."""
    settings = parts.settings
    if settings.embedded_database:
        free = shutil.disk_usage(settings.data_dir).free
        if free < settings.min_free_disk_bytes:
            raise DatabaseUnavailable(
                f"only {free} bytes are free in {settings.data_dir}: free some space, then send again"
            )
