"""Crawls as their users act on them: start, cancel, retry, delete."""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.metrics import Moment
from crawlscope.api.http.parts import ServiceParts
from crawlscope.api.http.segments import Segment
from crawlscope.core.errors import SettingsError, UsageError
from crawlscope.core.vocabulary import CrawlStatus, Engine, NotRetried
from crawlscope.crawls import at_firecrawl, requests
from crawlscope.crawls.adoption import adopt_unknown
from crawlscope.crawls.firecrawl_orders import (
    FirecrawlOrder,
    batch_order,
    crawl_order,
    require_public_targets,
)
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.schemas import (
    GOES_ON_HEADER,
    MAX_BATCH_URLS,
    CountDifference,
    CrawlCancelled,
    CrawlReconciled,
    CrawlRecounted,
    CrawlStarted,
    DeliveriesReplayed,
    PageNotRetried,
    PagesQueued,
)
from crawlscope.crawls.trace_context import trace_context
from crawlscope.pages.retry import Retry, note_rescrape, pages_to_scrape, retry_pages
from crawlscope.processes.parts import Parts
from crawlscope.sessions.recount import recount
from crawlscope.webhooks.replay import WhichDeliveries, replay
from crawlscope.webhooks.signature import same_secret

DEFAULT_LIMIT = 10_000
ONE_OF_BOTH = "give either `url`, where a crawl starts, or `urls`, to scrape just these"

MOST_NAMED = 1_000
"""As many pages as an answer lists."""

log = structlog.get_logger(__name__)
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
    rescrape: bool = False
    """Whether the crawler shall fetch those again whose content is not known."""


@router.post("", status_code=202, response_model_exclude_none=True)
async def start_crawl(
    order: StartCrawl,
    parts: ServiceParts,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
    traceparent: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> CrawlStarted:
    """Starts a crawl, or a batch scrape of `urls`; the answer comes before its first page."""
    allow_private = _may_reach_private(parts, x_crawlscope_local)
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
async def retry_crawl(
    crawl_id: Segment,
    parts: ServiceParts,
    which: RetryPages | None = None,
    x_crawlscope_local: Annotated[str | None, Header(include_in_schema=False)] = None,
    traceparent: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> PagesQueued:
    """Indexes failed pages anew whose content is known; has others fetched again where that is asked for."""
    which = which or RetryPages()
    rescrape = None
    if which.rescrape:
        allow_private = _may_reach_private(parts, x_crawlscope_local)
        rescrape = await _scrape_again(parts, crawl_id, which.urls, allow_private, traceparent)
    retry = await parts.database.run(lambda connection: retry_pages(connection, crawl_id, which.urls))
    return _retried(crawl_id, retry, rescrape)


@router.post("/{crawl_id}/reconcile", status_code=202)
async def reconcile_crawl(crawl_id: Segment, parts: ServiceParts) -> CrawlReconciled:
    """Compares the crawl with what Firecrawl's API says of it, and fetches what is missing.

    One that nothing was ever heard of is taken into the records, if Firecrawl knows it.
    """
    firecrawl, reconciler = await parts.firecrawl.client(), await _reconciler(parts)
    adopted = await adopt_unknown(parts.database, firecrawl, crawl_id)
    return CrawlReconciled(**vars(await reconciler.reconcile(crawl_id)), adopted=adopted)


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
async def delete_crawl(crawl_id: Segment, parts: ServiceParts, response: Response) -> None:
    """Removes the crawl, its pages and deliveries, and the chunks that no other crawl holds.

    One that runs is stopped. Where Firecrawl cannot be told to, a header of the answer says so.
    """
    indexing = parts.require_index().indexing
    goes_on = await _stop_at_firecrawl(parts, crawl_id)
    await parts.database.run(lambda connection: requests.delete_crawl(connection, crawl_id, indexing))
    if goes_on:
        log.warning("deleted_crawl_goes_on", crawl_id=crawl_id, reason=goes_on)
        response.headers[GOES_ON_HEADER] = " ".join(goes_on.split()).encode("ascii", "replace").decode()


async def _stop_at_firecrawl(parts: Parts, crawl_id: str) -> str | None:
    """Why a crawl that runs there may go on; None where it does not, the built-in crawler's included."""
    known = await parts.database.run(lambda connection: requests.known_crawl(connection, crawl_id))
    if known.ended or known.engine == Engine.BUILTIN:
        return None
    if parts.settings.firecrawl_url is None:
        return "it runs elsewhere, and CRAWLSCOPE_FIRECRAWL_URL is not set"
    try:
        firecrawl = await parts.firecrawl.client()
    except SettingsError as error:
        return str(error)
    return await at_firecrawl.stop_before_deletion(parts.database, firecrawl, crawl_id)


async def _reconciler(parts: Parts) -> Reconciler:
    firecrawl = await parts.firecrawl.client()
    return Reconciler(parts.database, firecrawl)


def _may_reach_private(parts: Parts, local_token: str | None) -> bool:
    return same_secret(local_token, parts.local_token) or parts.settings.allow_private_targets


@dataclass(frozen=True)
class _Rescrape:
    crawl_id: str
    urls: Set[str]
    """Those that the crawler took."""


async def _scrape_again(
    parts: Parts, crawl_id: str, urls: list[str] | None, allow_private: bool, traceparent: str | None
) -> _Rescrape | None:
    """Has the crawler that the crawl came from fetch what was not received, in a crawl of its own."""
    known = await parts.database.run(lambda connection: requests.known_crawl(connection, crawl_id))
    wanted = await parts.database.run(lambda connection: pages_to_scrape(connection, crawl_id, urls))
    if not wanted:
        return None
    if known.engine == Engine.BUILTIN:
        own = requests.CrawlOrder(wanted[0], len(wanted), allow_private, urls=wanted, retry_of=crawl_id)
        begun = await parts.database.run(lambda connection: requests.start_crawl(connection, own))
        rescrape = _Rescrape(begun, set(wanted))
    else:
        order = batch_order(wanted[:MAX_BATCH_URLS])
        started = await _order_at_firecrawl(parts, order, allow_private, traceparent, retry_of=crawl_id)
        rescrape = _Rescrape(started.crawl_id, set(order.urls) - set(started.invalid_urls))
    await parts.database.run(
        lambda connection: note_rescrape(connection, crawl_id, rescrape.crawl_id, len(rescrape.urls))
    )
    return rescrape


def _retried(crawl_id: str, retry: Retry, rescrape: _Rescrape | None) -> PagesQueued:
    left = [page for page in retry.left if rescrape is None or page.url not in rescrape.urls]
    if rescrape:
        left = [
            replace(page, reason=NotRetried.NOT_TAKEN) if page.reason.can_be_scraped else page
            for page in left
        ]
    reasons = Counter(page.reason.value for page in left)
    reasons[NotRetried.NO_URL.value] += retry.failures_without_url
    return PagesQueued(
        crawl_id=crawl_id,
        queued=retry.queued,
        rescraped=len(rescrape.urls) if rescrape else 0,
        rescrape_crawl_id=rescrape.crawl_id if rescrape else None,
        left=dict(+reasons),
        pages=[PageNotRetried(**vars(page)) for page in left[:MOST_NAMED]],
    )


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
    started = await _order_at_firecrawl(parts, wanted, allow_private, traceparent)
    return CrawlStarted(
        crawl_id=started.crawl_id,
        crawl_url=wanted.url,
        status=CrawlStatus.IN_PROGRESS,
        invalid_urls=None if order.urls is None else list(started.invalid_urls),
    )


async def _order_at_firecrawl(
    parts: Parts,
    order: FirecrawlOrder,
    allow_private: bool,
    traceparent: str | None,
    retry_of: str | None = None,
) -> at_firecrawl.Started:
    firecrawl = await parts.firecrawl.client()
    door = at_firecrawl.Door.of(parts.settings, parts.secret)
    if not allow_private:
        await require_public_targets(order)
    trace = trace_context(traceparent)
    return await at_firecrawl.start(parts.database, firecrawl, order, door, trace, retry_of)


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
