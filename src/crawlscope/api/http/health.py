"""Liveness, readiness, and the state of each part."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from crawlscope import __version__
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.indexing.generations import repository as generations
from crawlscope.processes.parts import Parts

CHECK_SECONDS = 5.0

router = APIRouter(tags=["health"])


class PartHealth(BaseModel):
    state: Literal["ok", "failing"]
    detail: str | None = None


class Health(BaseModel):
    status: Literal["ok", "degraded", "failing"]
    version: str
    parts: dict[str, PartHealth]


@router.get("/healthz", summary="Whether the process answers")
async def alive() -> dict[str, str]:
    """Answers while the process runs."""
    return {"status": "ok"}


@router.get("/readyz", summary="Whether deliveries can be committed")
async def ready(parts: ServiceParts, response: Response) -> PartHealth:
    """Whether deliveries can be committed; 503 if they cannot."""
    database = await _checked(parts.database.ping())
    if database.state != "ok":
        response.status_code = 503
    return database


@router.get("/health")
async def health(parts: ServiceParts) -> Health:
    """The state of each part: `failing` without the database, `degraded` without another part."""
    found = await check_parts(parts)
    if found["database"].state != "ok":
        status: Literal["ok", "degraded", "failing"] = "failing"
    else:
        status = "ok" if all(part.state == "ok" for part in found.values()) else "degraded"
    return Health(status=status, version=__version__, parts=found)


async def check_parts(parts: Parts) -> dict[str, PartHealth]:
    """Checks `database`, `index` and `embedder` at the same time. A part that a worker cannot use is failing,
    too: this process uses the embedder only when it opens it."""

    async def index_detail() -> str:
        index = parts.host.require_index()
        async with parts.database.transaction() as connection:
            serving = (await generations.live(connection)).serving
        if serving and serving.problem:
            raise IndexUnavailable(serving.problem)
        return f"{(await index.index.size()).chunks:,} chunks"

    async def embedder_detail() -> str:
        index = parts.host.require_index()
        await index.embedder.ready()
        return index.embedder.notice or index.generation.recipe.identity.description

    async def reported() -> dict[str, str]:
        with suppress(CrawlscopeError, TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                return {each.part: each.reason for each in await parts.insights.outages()}
        return {}

    database, index, embedder, outages = await asyncio.gather(
        _checked(parts.database.ping()), _checked(index_detail()), _checked(embedder_detail()), reported()
    )
    found = {"database": database, "index": index, "embedder": embedder}
    lost = {
        name: PartHealth(state="failing", detail=outages[name])
        for name in ("index", "embedder")
        if found[name].state == "ok" and name in outages
    }
    return found | lost


async def _checked(check: Awaitable[str | None]) -> PartHealth:
    try:
        return PartHealth(state="ok", detail=await asyncio.wait_for(check, CHECK_SECONDS))
    except TimeoutError:
        return PartHealth(state="failing", detail=f"no answer in {CHECK_SECONDS:g} seconds")
    except CrawlscopeError as error:
        return PartHealth(state="failing", detail=str(error))
