"""Crawls as their users act on them: start, cancel, retry, delete."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from crawlscope.crawls import at_firecrawl, requests
from crawlscope.crawls.answers import (
    CountDifference,
    CrawlCancelled,
    CrawlReconciled,
    CrawlRecounted,
    CrawlStarted,
    DeliveriesReplayed,
    PagesQueued,
)
from crawlscope.crawls.firecrawl_orders import (
    FirecrawlOrder,
    batch_order,
    crawl_order,
    require_public_targets,
)
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.trace_context import trace_context
from crawlscope.errors import UsageError
from crawlscope.faces.http.access import Authenticated
from crawlscope.faces.http.metrics import Moment
from crawlscope.faces.http.parts import ServiceParts
from crawlscope.faces.http.segments import Segment
from crawlscope.parts import Parts
from crawlscope.receive.replay import WhichDeliveries, replay
from crawlscope.receive.signature import same_secret
from crawlscope.sessions.recount import recount
from crawlscope.vocabulary import CrawlStatus, Engine

DEFAULT_LIMIT = 10_000
ONE_OF_BOTH = "give either `url`, where a crawl starts, or `urls`, to scrape just these"

router = APIRouter(prefix="/api/crawls", tags=["crawls"], dependencies=[Authenticated])
ledger = APIRouter(prefix="/api/deliveries", tags=["crawls"], dependencies=[Authenticated])


class StartCrawl(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str | None = None
    urls: list[str] | None = None
    limit: int | None = Field(default=None, ge=1, le=1_000_000)
    engine: Engine | None = None
    scrape_options: dict[str, Any] | None = None
    crawl_options: dict[str, Any] | None = None


class RetryPages(BaseModel):
    model_config = ConfigDict(extra="forbid")

    urls: list[str] | None = None
    """Only these pages; all failed ones without it."""


@router.post("", status_code=202, response_model_exclude_none=True)
async def start_crawl(
    order: StartCrawl,
    parts: ServiceParts,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
    traceparent: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> CrawlStarted:
    """Starts a crawl, or a batch scrape of `urls`; the answer comes before its first page."""
    local = same_secret(x_crawlscope_local, parts.local_token)
    allow_private = local or parts.settings.allow_private_targets
    by_itself = Engine.FIRECRAWL if parts.settings.firecrawl_url else Engine.BUILTIN
    if (order.engine or by_itself) is Engine.BUILTIN:
        return await _start_builtin(parts, order, allow_private)
    return await _start_at_firecrawl(parts, order, allow_private, traceparent)


@router.post("/{crawl_id}/cancel", status_code=202)
async def cancel_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlCancelled:
    """Tells the crawler to stop; what it has delivered is still indexed."""
    known = await parts.database.run(lambda connection: requests.known_crawl(connection, crawl_id))
    if known.engine == Engine.BUILTIN:
        cancelled = await parts.database.run(lambda connection: requests.cancel_crawl(connection, crawl_id))
    elif known.ended:
        cancelled = False
    elif parts.settings.firecrawl_url is None:
        raise UsageError(
            f"crawl {crawl_id} runs elsewhere: set CRAWLSCOPE_FIRECRAWL_URL to where, or cancel it there"
        )
    else:
        cancelled = await _cancel_at_firecrawl(parts, crawl_id)
    return CrawlCancelled(crawl_id=crawl_id, cancelled=cancelled)


@router.post("/{crawl_id}/retry", status_code=202)
async def retry_crawl(crawl_id: Segment, parts: ServiceParts, which: RetryPages | None = None) -> PagesQueued:
    """Queues failed pages again whose content was delivered."""
    urls = which.urls if which else None
    queued = await parts.database.run(lambda connection: requests.retry_crawl(connection, crawl_id, urls))
    return PagesQueued(crawl_id=crawl_id, queued=queued)


@router.post("/{crawl_id}/reconcile", status_code=202)
async def reconcile_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlReconciled:
    """Compares the crawl with what Firecrawl's API says of it, and fetches what is missing."""
    return CrawlReconciled(**vars(await (await _reconciler(parts)).reconcile(crawl_id)))


@router.post("/{crawl_id}/recount", status_code=200)
async def recount_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlRecounted:
    """Computes the crawl's numbers again from the facts; as a rule nothing changes."""
    differing = await parts.database.run(lambda connection: recount(connection, crawl_id))
    changed = {name: CountDifference(**vars(difference)) for name, difference in differing.items()}
    return CrawlRecounted(crawl_id=crawl_id, changed=changed)


class ReplayDeliveries(BaseModel):
    """Which deliveries: all that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    crawl_id: str | None = None
    event_type: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    noted: bool = False


@ledger.post("/replay")
async def replay_deliveries(which: ReplayDeliveries, parts: ServiceParts) -> DeliveriesReplayed:
    """Takes deliveries in again from the ledger, with the rules of this version."""
    replayed = await replay(parts.database, WhichDeliveries(**vars(which)), datetime.now(UTC))
    return DeliveriesReplayed(**{**vars(replayed), "crawls": sorted(replayed.crawls)})


@router.delete("/{crawl_id}", status_code=204)
async def delete_crawl(crawl_id: Segment, parts: ServiceParts) -> None:
    """Removes the crawl, its pages and deliveries, and the chunks that no other crawl holds."""
    indexing = parts.require_index().indexing
    await parts.database.run(lambda connection: requests.delete_crawl(connection, crawl_id, indexing))


async def _reconciler(parts: Parts) -> Reconciler:
    firecrawl = await parts.firecrawl.client()
    return Reconciler(parts.database, firecrawl, parts.settings.reconcile_after_seconds)


async def _start_builtin(parts: Parts, order: StartCrawl, allow_private: bool) -> CrawlStarted:
    if order.urls is not None:
        raise UsageError(
            "the built-in crawler scrapes no batches: leave `engine` out and set CRAWLSCOPE_FIRECRAWL_URL, "
            "or crawl each of the urls by itself"
        )
    if order.scrape_options or order.crawl_options:
        raise UsageError("scrape_options and crawl_options are Firecrawl's; the built-in crawler has none")
    url = requests.check_target(_one_url(order))
    wanted = requests.CrawlOrder(url, order.limit or DEFAULT_LIMIT, allow_private)
    crawl_id = await parts.database.run(lambda connection: requests.start_crawl(connection, wanted))
    return CrawlStarted(crawl_id=crawl_id, crawl_url=url, status=CrawlStatus.IN_PROGRESS)


async def _start_at_firecrawl(
    parts: Parts, order: StartCrawl, allow_private: bool, traceparent: str | None
) -> CrawlStarted:
    wanted = _firecrawl_order(order)
    firecrawl = await parts.firecrawl.client()
    door = at_firecrawl.Door.of(parts.settings, parts.secret)
    if not allow_private:
        await require_public_targets(wanted)
    trace = trace_context(traceparent)
    started = await at_firecrawl.start(parts.database, firecrawl, wanted, door, trace)
    return CrawlStarted(
        crawl_id=started.crawl_id,
        crawl_url=wanted.url,
        status=CrawlStatus.IN_PROGRESS,
        invalid_urls=None if order.urls is None else list(started.invalid_urls),
    )


async def _cancel_at_firecrawl(parts: Parts, crawl_id: str) -> bool:
    firecrawl = await parts.firecrawl.client()
    return await at_firecrawl.cancel(parts.database, firecrawl, await _reconciler(parts), crawl_id)


def _firecrawl_order(order: StartCrawl) -> FirecrawlOrder:
    if order.urls is None:
        return crawl_order(_one_url(order), order.limit, order.scrape_options, order.crawl_options)
    if order.url is not None:
        raise UsageError(ONE_OF_BOTH)
    if order.limit is not None or order.crawl_options:
        raise UsageError(
            "limit and crawl_options are for crawls; a batch scrape takes its urls and no others"
        )
    return batch_order(order.urls, order.scrape_options)


def _one_url(order: StartCrawl) -> str:
    if order.url is None:
        raise UsageError(ONE_OF_BOTH)
    return order.url
