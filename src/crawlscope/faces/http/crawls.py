"""Crawls as their users act on them: start, cancel, retry, delete."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from crawlscope.crawls import requests
from crawlscope.crawls.answers import (
    CountDifference,
    CrawlCancelled,
    CrawlReconciled,
    CrawlRecounted,
    CrawlStarted,
    DeliveriesReplayed,
    PagesQueued,
)
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.errors import UsageError
from crawlscope.faces.http.access import Authenticated
from crawlscope.faces.http.parts import ServiceParts
from crawlscope.parts import Parts
from crawlscope.receive.replay import WhichDeliveries, replay
from crawlscope.receive.signature import same_secret
from crawlscope.sessions.recount import recount

DEFAULT_LIMIT = 10_000

router = APIRouter(prefix="/api/crawls", tags=["crawls"], dependencies=[Authenticated])
ledger = APIRouter(prefix="/api/deliveries", tags=["crawls"], dependencies=[Authenticated])


class StartCrawl(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=1_000_000)
    engine: Literal["firecrawl", "builtin"] | None = None
    scrape_options: dict[str, Any] | None = None


class RetryPages(BaseModel):
    model_config = ConfigDict(extra="forbid")

    urls: list[str] | None = None
    """Only these pages; all failed ones without it."""


@router.post("", status_code=202)
async def start_crawl(
    order: StartCrawl,
    parts: ServiceParts,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> CrawlStarted:
    """Starts a crawl; the answer comes before its first page."""
    _require_builtin(order, parts)
    local = same_secret(x_crawlscope_local, parts.local_token)
    wanted = requests.CrawlOrder(
        url=order.url,
        limit=order.limit,
        allow_private=local or parts.settings.allow_private_targets,
    )
    crawl_id = await parts.database.run(lambda connection: requests.start_crawl(connection, wanted))
    return CrawlStarted(crawl_id=crawl_id, crawl_url=requests.check_target(order.url), status="in_progress")


@router.post("/{crawl_id}/cancel", status_code=202)
async def cancel_crawl(crawl_id: str, parts: ServiceParts) -> CrawlCancelled:
    """Tells the crawler to stop; what it has delivered is still indexed."""
    cancelled = await parts.database.run(lambda connection: requests.cancel_crawl(connection, crawl_id))
    return CrawlCancelled(crawl_id=crawl_id, cancelled=cancelled)


@router.post("/{crawl_id}/retry", status_code=202)
async def retry_crawl(crawl_id: str, parts: ServiceParts, which: RetryPages | None = None) -> PagesQueued:
    """Queues failed pages again whose content was delivered."""
    urls = which.urls if which else None
    queued = await parts.database.run(lambda connection: requests.retry_crawl(connection, crawl_id, urls))
    return PagesQueued(crawl_id=crawl_id, queued=queued)


@router.post("/{crawl_id}/reconcile", status_code=202)
async def reconcile_crawl(crawl_id: str, parts: ServiceParts) -> CrawlReconciled:
    """Compares the crawl with what Firecrawl's API says of it, and fetches what is missing."""
    return CrawlReconciled(**vars(await (await _reconciler(parts)).reconcile(crawl_id)))


@router.post("/{crawl_id}/recount", status_code=200)
async def recount_crawl(crawl_id: str, parts: ServiceParts) -> CrawlRecounted:
    """Computes the crawl's numbers again from the facts; as a rule nothing changes."""
    differing = await parts.database.run(lambda connection: recount(connection, crawl_id))
    changed = {name: CountDifference(**vars(difference)) for name, difference in differing.items()}
    return CrawlRecounted(crawl_id=crawl_id, changed=changed)


class ReplayDeliveries(BaseModel):
    """Which deliveries: all that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    crawl_id: str | None = None
    event_type: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    noted: bool = False


@ledger.post("/replay")
async def replay_deliveries(which: ReplayDeliveries, parts: ServiceParts) -> DeliveriesReplayed:
    """Takes deliveries in again from the ledger, with the rules of this version."""
    replayed = await replay(parts.database, WhichDeliveries(**vars(which)), datetime.now(UTC))
    return DeliveriesReplayed(**{**vars(replayed), "crawls": sorted(replayed.crawls)})


@router.delete("/{crawl_id}", status_code=204)
async def delete_crawl(crawl_id: str, parts: ServiceParts) -> None:
    """Removes the crawl, its pages and deliveries, and the chunks that no other crawl holds."""
    indexing = parts.require_index().indexing
    await parts.database.run(lambda connection: requests.delete_crawl(connection, crawl_id, indexing))


async def _reconciler(parts: Parts) -> Reconciler:
    firecrawl = await parts.firecrawl.client()
    return Reconciler(parts.database, firecrawl, parts.settings.reconcile_after_seconds)


def _require_builtin(order: StartCrawl, parts: Parts) -> None:
    engine = order.engine or ("firecrawl" if parts.settings.firecrawl_url else requests.BUILTIN)
    if engine != requests.BUILTIN:
        raise UsageError(
            "starting crawls on Firecrawl is not supported yet: start it there with this service's "
            'webhook, or use "engine": "builtin"'
        )
    if order.scrape_options:
        raise UsageError("scrape_options are Firecrawl's; the built-in crawler has none")
