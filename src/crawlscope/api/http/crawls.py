"""Crawls as their users act on them: start, cancel, retry, delete."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict

from crawlscope.api.http.access import Authenticated, same_secret
from crawlscope.api.http.parameters import Moment, Segment, ServiceParts
from crawlscope.crawls.schemas import (
    GOES_ON_HEADER,
    CountDifference,
    CrawlCancelled,
    CrawlReconciled,
    CrawlRecounted,
    CrawlStarted,
    PagesQueued,
    RetryPages,
    StartCrawl,
)
from crawlscope.processes.parts import Parts
from crawlscope.sessions.recount import recount
from crawlscope.webhooks.replay import WhichDeliveries, replay
from crawlscope.webhooks.schemas import DeliveriesReplayed

router = APIRouter(prefix="/api/crawls", tags=["crawls"], dependencies=[Authenticated])
ledger = APIRouter(prefix="/api/deliveries", tags=["crawls"], dependencies=[Authenticated])


@router.post("", status_code=202, response_model_exclude_none=True)
async def start_crawl(
    wanted: StartCrawl,
    parts: ServiceParts,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
    traceparent: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> CrawlStarted:
    """Starts a crawl, or a batch scrape of `urls`; the answer comes before its first page."""
    return await parts.crawls.start(wanted, _may_reach_private(parts, x_crawlscope_local), traceparent)


@router.post("/{crawl_id}/cancel", status_code=202)
async def cancel_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlCancelled:
    """Cancels a crawl. Pages that were delivered are still indexed."""
    return CrawlCancelled(crawl_id=crawl_id, cancelled=await parts.crawls.cancel(crawl_id))


@router.post("/{crawl_id}/retry", status_code=202)
async def retry_crawl(
    crawl_id: Segment,
    parts: ServiceParts,
    which: RetryPages | None = None,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
    traceparent: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> PagesQueued:
    """Indexes failed pages anew whose content is known; has others fetched again where that is asked for."""
    allow_private = _may_reach_private(parts, x_crawlscope_local)
    return await parts.crawls.retry(crawl_id, which or RetryPages(), allow_private, traceparent)


@router.post("/{crawl_id}/reconcile", status_code=202)
async def reconcile_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlReconciled:
    """Compares the crawl with what Firecrawl's API says of it, and fetches what is missing.

    A crawl that only Firecrawl knows is taken into the records first.
    """
    return await parts.crawls.reconcile(crawl_id)


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
    """Reprocesses stored deliveries with the rules of this version."""
    replayed = await replay(parts.database, WhichDeliveries(**vars(which)), datetime.now(UTC))
    return DeliveriesReplayed(**{**vars(replayed), "crawls": sorted(replayed.crawls)})


@router.delete("/{crawl_id}", status_code=204)
async def delete_crawl(crawl_id: Segment, parts: ServiceParts, response: Response) -> None:
    """Removes the crawl, its pages and deliveries, and the chunks that no other crawl holds.

    One that runs is stopped. Where Firecrawl cannot be told to, a header of the answer says so.
    """
    goes_on = await parts.crawls.delete(crawl_id, parts.host.require_index().indexing)
    if goes_on:
        response.headers[GOES_ON_HEADER] = " ".join(goes_on.split()).encode("ascii", "replace").decode()


def _may_reach_private(parts: Parts, local_token: str | None) -> bool:
    return same_secret(local_token, parts.local_token) or parts.settings.allow_private_targets
