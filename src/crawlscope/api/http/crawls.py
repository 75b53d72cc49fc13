"""Commands on crawls over HTTP: start, cancel, retry, reconcile, recount, replay, delete."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, StrictBool

from crawlscope.api.http.access import same_secret
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

router = APIRouter(prefix="/api/crawls", tags=["crawls"])
ledger = APIRouter(prefix="/api/deliveries", tags=["crawls"])


@router.post("", status_code=202, response_model_exclude_none=True)
async def start_crawl(
    wanted: StartCrawl,
    parts: ServiceParts,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
    traceparent: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> CrawlStarted:
    """Starts a crawl, or a batch scrape of `urls`. Answers before the first page is fetched."""
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
    """Indexes failed pages again if their content is known. `rescrape` fetches the others again."""
    allow_private = _may_reach_private(parts, x_crawlscope_local)
    return await parts.crawls.retry(crawl_id, which or RetryPages(), allow_private, traceparent)


@router.post("/{crawl_id}/reconcile", status_code=202)
async def reconcile_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlReconciled:
    """Compares the crawl with Firecrawl's records, and fetches missing pages.

    A crawl that only Firecrawl knows is recorded first.
    """
    return await parts.crawls.reconcile(crawl_id)


@router.post("/{crawl_id}/recount", status_code=200)
async def recount_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlRecounted:
    """Recomputes the counts and totals of the crawl from its records; usually nothing changes."""
    differing = await parts.database.run(lambda connection: recount(connection, crawl_id))
    changed = {name: CountDifference(**vars(difference)) for name, difference in differing.items()}
    return CrawlRecounted(crawl_id=crawl_id, changed=changed)


class ReplayDeliveries(BaseModel):
    """Selects deliveries; all given conditions must hold."""

    model_config = ConfigDict(extra="forbid")

    crawl_id: str | None = None
    event_type: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    noted: StrictBool = False


@ledger.post("/replay")
async def replay_deliveries(which: ReplayDeliveries, parts: ServiceParts) -> DeliveriesReplayed:
    """Reprocesses stored deliveries with the rules of this version."""
    replayed = await replay(parts.database, WhichDeliveries(**vars(which)), datetime.now(UTC))
    return DeliveriesReplayed(**{**vars(replayed), "crawls": sorted(replayed.crawls)})


@router.delete("/{crawl_id}", status_code=204)
async def delete_crawl(crawl_id: Segment, parts: ServiceParts, response: Response) -> None:
    """Deletes the crawl, its pages and deliveries, and the chunks that no other crawl found and no program
    brought without a crawl.

    A running crawl is cancelled. If Firecrawl cannot cancel it, a header of the answer says so.
    """
    goes_on = await parts.crawls.delete(crawl_id, parts.host.require_index().indexing)
    if goes_on:
        response.headers[GOES_ON_HEADER] = " ".join(goes_on.split()).encode("ascii", "replace").decode()


def _may_reach_private(parts: Parts, local_token: str | None) -> bool:
    return same_secret(local_token, parts.local_token) or parts.settings.allow_private_targets
