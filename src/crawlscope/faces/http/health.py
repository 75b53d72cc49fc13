"""Whether the service lives, can work, and which of its parts cannot."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from crawlscope import __version__
from crawlscope.errors import CrawlscopeError
from crawlscope.faces.http.parts import ServiceParts
from crawlscope.parts import Parts

CHECK_SECONDS = 5.0

router = APIRouter(tags=["health"])


class PartHealth(BaseModel):
    state: Literal["ok", "failing"]
    detail: str | None = None


class Health(BaseModel):
    status: Literal["ok", "degraded", "failing"]
    version: str
    parts: dict[str, PartHealth]


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(parts: ServiceParts, response: Response) -> PartHealth:
    """Deliveries can be committed; 503 while they cannot."""
    database = await _check_database(parts)
    if database.state != "ok":
        response.status_code = 503
    return database


@router.get("/health")
async def health(parts: ServiceParts) -> Health:
    """Each part with its state: `failing` without the database, `degraded` without another part."""
    database, index = await asyncio.gather(_check_database(parts), _check_index(parts))
    if database.state != "ok":
        status: Literal["ok", "degraded", "failing"] = "failing"
    else:
        status = "ok" if index.state == "ok" else "degraded"
    return Health(status=status, version=__version__, parts={"database": database, "index": index})


async def _check_database(parts: Parts) -> PartHealth:
    try:
        await asyncio.wait_for(parts.database.ping(), CHECK_SECONDS)
    except TimeoutError:
        return PartHealth(state="failing", detail=f"no answer in {CHECK_SECONDS:g} seconds")
    except CrawlscopeError as error:
        return PartHealth(state="failing", detail=str(error))
    return PartHealth(state="ok")


async def _check_index(parts: Parts) -> PartHealth:
    try:
        size = await asyncio.wait_for(parts.require_index().index.size(), CHECK_SECONDS)
    except TimeoutError:
        return PartHealth(state="failing", detail=f"no answer in {CHECK_SECONDS:g} seconds")
    except CrawlscopeError as error:
        return PartHealth(state="failing", detail=str(error))
    return PartHealth(state="ok", detail=f"{size.chunks} chunks")
