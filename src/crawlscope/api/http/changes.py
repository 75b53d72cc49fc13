"""Changes that changedetection.io saw: its door, and what became of them."""

from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.bodies import read_body, require_disk, require_json, require_token
from crawlscope.api.http.metrics import Limit, Offset, UrlPart
from crawlscope.api.http.parts import ServiceParts
from crawlscope.api.http.segments import Segment
from crawlscope.changes.acceptance import Rescraping, accept_change
from crawlscope.core.service_file import CHANGES_PATH
from crawlscope.core.vocabulary import Engine
from crawlscope.insights.schemas import ChangeListResponse
from crawlscope.insights.service import DEFAULT_LIMIT
from crawlscope.processes.parts import Parts
from crawlscope.webhooks.payload import UnreadableDelivery

router = APIRouter(tags=["changes"])


class ChangeTaken(BaseModel):
    status: str
    change_id: UUID
    crawl_id: str | None


@router.post(CHANGES_PATH, status_code=202, dependencies=[Authenticated])
async def take_change(request: Request, parts: ServiceParts) -> ChangeTaken:
    """Records the change and fetches its page again. 202 means: committed to disk."""
    return await _take(request, parts)


@router.post(f"{CHANGES_PATH}/{{token}}", status_code=202)
async def take_change_by_url(token: Segment, request: Request, parts: ServiceParts) -> ChangeTaken:
    """The same with the token in the URL in place of the secret."""
    require_token(token, request, parts)
    return await _take(request, parts)


@router.get("/api/changes", dependencies=[Authenticated])
async def list_changes(
    parts: ServiceParts, url: UrlPart = None, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> ChangeListResponse:
    """What changed, newest first, and how long it took to be searchable."""
    return await parts.insights.changes(url, limit, offset)


async def _take(request: Request, parts: Parts) -> ChangeTaken:
    body = await read_body(request)
    require_json(request)
    require_disk(parts)
    engine = Engine.FIRECRAWL if parts.settings.firecrawl_url else Engine.BUILTIN
    rescraping = Rescraping(engine, parts.settings.allow_private_targets)
    try:
        taken = await accept_change(parts.database, body, datetime.now(UTC), rescraping)
    except UnreadableDelivery as error:
        raise HTTPException(400, str(error)) from None
    return ChangeTaken(**vars(taken))
