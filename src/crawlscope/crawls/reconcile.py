"""Compares a crawl with what Firecrawl's own API says of it: fetches pages that no delivery brought, records
those that failed, and takes over how and when the crawl ended."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import FirecrawlJobUnknown, FirecrawlRefused, FirecrawlUnavailable
from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import CrawlStatus, Engine, PageState, ReconcileState
from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconciliations import Found
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient
from crawlscope.firecrawl.documents import failed_page, scraped_page
from crawlscope.firecrawl.listing import Listing
from crawlscope.firecrawl.schemas import JobErrors, JobKind, JobStatus
from crawlscope.pages.causes import (
    DROPPED_BY_CANCEL,
    ROBOTS_BLOCKED,
    Cause,
    cause_of,
    error_words,
    precision,
    tells_of_cancel,
)
from crawlscope.pages.delivered import DeliveredPage
from crawlscope.pages.receive import take_pages
from crawlscope.sessions.fold import PageSeen, Told
from crawlscope.sessions.store import SESSIONS, keep_fact, move_counts, require_session

PAGES = models.table_of(models.Page)
DELIVERIES = models.table_of(models.Delivery)
REQUESTS = models.table_of(models.CrawlRequest)
CHECKS = models.table_of(models.Reconciliation)
TOO_MUCH = "Firecrawl hands out {found:,} of the {promised:,} documents that it counts"
NAMELESS = "{count:,} of the documents that Firecrawl hands out name no URL"
NEITHER = "{count:,} of the {asked:,} URLs of the batch brought neither a page nor an error"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reconciled:
    """What came of it. Pages are those whose state this has changed."""

    crawl_id: str
    status: CrawlStatus
    state: ReconcileState
    added: int = 0
    """Pages that were fetched, and queued to be indexed."""
    failed: int = 0
    cancelled: int = 0
    note: str | None = None
    """Why it is not settled, or what stays missing."""


@dataclass
class _Known:
    """What is known of the crawl before Firecrawl is asked."""

    kind: JobKind | None
    builtin: bool
    asked: Sequence[str]
    """The URLs of a batch scrape that was asked for here."""
    delivered: set[UUID]
    """Source keys of the pages whose content is known."""
    failed: dict[UUID, int]
    """Source keys of all others, and how much is known of why; see `causes.precision`."""
    unclear: dict[str, str]
    """By URL the words of those that failed for no clear reason."""
    started_at: datetime
    running_at: datetime | None
    """When it was known last to go on."""
    documents: set[UUID]
    """Source keys of the pages that brought a document, be it that of an error page."""


@dataclass
class _Findings:
    """Pages whose state the comparison changes."""

    added: int = 0
    failed: int = 0
    cancelled: int = 0

    def __iadd__(self, other: "_Findings") -> "_Findings":
        self.added += other.added
        self.failed += other.failed
        self.cancelled += other.cancelled
        return self


class Reconciler:
    def __init__(self, database: Database, firecrawl: FirecrawlClient) -> None:
        self._database = database
        self._firecrawl = firecrawl

    async def check(self, crawl_id: str, *, in_full: bool) -> None:
        """Asks how the crawl stands, and compares it where it has ended. Raises like `reconcile`."""
        if in_full:
            await self.reconcile(crawl_id)
            return
        asked_at = datetime.now(UTC)
        kind = await self._database.run(lambda connection: job_kind(connection, crawl_id))
        try:
            status = await self._firecrawl.status(crawl_id, kind)
        except FirecrawlJobUnknown as error:
            await self._forgotten(crawl_id, asked_at, error)
            return
        except (FirecrawlUnavailable, FirecrawlRefused) as error:
            await self._note_failure(crawl_id, error)
            raise
        if status.ended:
            await self.reconcile(crawl_id)
            return
        await self._keep_told(crawl_id, status)
        took = datetime.now(UTC) - asked_at

        async def note(connection: AsyncConnection) -> None:
            await require_session(connection, crawl_id)
            counts = status.completed, status.total
            await reconciliations.note_running(connection, crawl_id, *counts, took)

        await self._database.run(note)

    async def reconcile(self, crawl_id: str) -> Reconciled:
        """Safe at any time and any number of times; what was found stays, however it ends.

        Raises `NotFoundError`, `FirecrawlUnavailable` and `FirecrawlRefused`.
        """
        crawl_id, asked_at = storable(crawl_id), datetime.now(UTC)
        known = await self._database.run(lambda connection: _known(connection, crawl_id))
        if known.builtin:
            return await self._noted(crawl_id, asked_at, Found(ReconcileState.SETTLED))
        try:
            return await self._compare(crawl_id, known, asked_at)
        except FirecrawlJobUnknown as error:
            return await self._forgotten(crawl_id, asked_at, error)
        except (FirecrawlUnavailable, FirecrawlRefused) as error:
            await self._note_failure(crawl_id, error)
            raise

    async def take_over_status(self, crawl_id: str) -> None:
        """How the crawl stands, nothing of its pages. Raises like `reconcile`, and `FirecrawlJobUnknown`."""
        kind = await self._database.run(lambda connection: job_kind(connection, crawl_id))
        await self._keep_told(crawl_id, await self._firecrawl.status(crawl_id, kind))

    async def _note_failure(self, crawl_id: str, error: FirecrawlUnavailable | FirecrawlRefused) -> None:
        wait = error.retry_after if isinstance(error, FirecrawlUnavailable) else None

        async def note(connection: AsyncConnection) -> None:
            await require_session(connection, crawl_id)
            await reconciliations.note_failure(connection, crawl_id, str(error), wait)

        await self._database.run(note)

    async def _forgotten(self, crawl_id: str, asked_at: datetime, error: FirecrawlJobUnknown) -> Reconciled:
        state = ReconcileState.EXPIRED if error.expired else ReconcileState.UNKNOWN
        return await self._noted(crawl_id, asked_at, Found(state, note=str(error)))

    async def _compare(self, crawl_id: str, known: _Known, asked_at: datetime) -> Reconciled:
        findings, nameless = _Findings(), 0
        listing = self._firecrawl.documents(crawl_id, known.kind)
        async for documents in listing:
            now = datetime.now(UTC)
            read = [scraped_page(document, now, pushed=False) for document in documents]
            pages = [page for page in read if page is not None]
            nameless += len(read) - len(pages)
            known.documents.update(hash_key(page.source_url) for page in pages)
            findings += await self._take(crawl_id, _missing(pages, known))
        assert listing.status is not None
        errors = await self._firecrawl.errors(crawl_id, known.kind)
        failed = _failed_pages(errors, listing.status, known)
        findings += await self._take(crawl_id, _missing(failed, known))
        failed_at = _last_failed_at(failed, listing.status)
        await self._keep_told(crawl_id, listing.status, failed_at, known.running_at)
        return await self._noted(crawl_id, asked_at, _found(listing, known, nameless), findings)

    async def _take(self, crawl_id: str, pages: Sequence[DeliveredPage]) -> _Findings:
        if not pages:
            return _Findings()

        async def take(connection: AsyncConnection) -> _Findings:
            await require_session(connection, crawl_id)
            taken = await take_pages(connection, crawl_id, pages)
            seen = min(page.source_url for page in pages)
            fetched = PageSeen(datetime.now(UTC), seen, fetched=True)
            await keep_fact(connection, crawl_id, fetched, "fetched")
            await move_counts(connection, crawl_id, taken.change, taken.settled_at)
            return _Findings(
                len(taken.job_ids),
                taken.settled.count(PageState.FAILED),
                taken.settled.count(PageState.CANCELLED),
            )

        return await self._database.run(take)

    async def _keep_told(
        self,
        crawl_id: str,
        status: JobStatus,
        failed_at: datetime | None = None,
        running_at: datetime | None = None,
    ) -> None:
        """`failed_at` is when the last page failed, `running_at` when it was known last to go on."""
        told = Told(
            datetime.now(UTC),
            CrawlStatus(status.status) if status.ended else None,
            status.created_at,
            status.completed_at if status.ended else None,
            error_words(status.error),
            failed_at,
            running_at if status.ended else None,
        )
        identity = [str(each) for each in (told.ended, told.created_at, told.completed_at, told.error)]
        identity += [str(failed_at)] if failed_at else []

        async def keep(connection: AsyncConnection) -> None:
            await require_session(connection, crawl_id)
            await keep_fact(connection, crawl_id, told, "told", *identity)

        await self._database.run(keep)

    async def _noted(
        self, crawl_id: str, asked_at: datetime, found: Found, findings: _Findings | None = None
    ) -> Reconciled:
        findings = findings or _Findings()
        found = replace(found, added=findings.added)

        async def keep(connection: AsyncConnection) -> CrawlStatus:
            await require_session(connection, crawl_id)
            await reconciliations.note_check(connection, crawl_id, found, asked_at)
            status = select(SESSIONS.c.status).where(SESSIONS.c.crawl_id == crawl_id)
            return CrawlStatus((await connection.execute(status)).scalar_one())

        status = await self._database.run(keep)
        log.info("crawl_reconciled", crawl_id=crawl_id, state=found.state.value, added=findings.added)
        return Reconciled(
            crawl_id=crawl_id,
            status=status,
            state=found.state,
            **vars(findings),
            note=found.note,
        )


async def _known(connection: AsyncConnection, crawl_id: str) -> _Known:
    await require_session(connection, crawl_id)
    pages = await connection.execute(
        select(
            *(PAGES.c.source_key, PAGES.c.source_url, PAGES.c.delivered, PAGES.c.status_code),
            *(PAGES.c.error_code, func.coalesce(PAGES.c.error_detail, PAGES.c.error).label("words")),
        ).where(PAGES.c.crawl_id == crawl_id)
    )
    rows = pages.all()
    session = (
        await connection.execute(
            select(SESSIONS.c.started_at, CHECKS.c.running_at)
            .outerjoin(CHECKS, CHECKS.c.crawl_id == SESSIONS.c.crawl_id)
            .where(SESSIONS.c.crawl_id == crawl_id)
        )
    ).one()
    request = (
        await connection.execute(
            select(REQUESTS.c.engine, REQUESTS.c.options).where(REQUESTS.c.crawl_id == crawl_id)
        )
    ).one_or_none()
    return _Known(
        kind=await job_kind(connection, crawl_id),
        builtin=request is not None and request.engine == Engine.BUILTIN,
        asked=request.options.get("asked", ()) if request else (),
        delivered={row.source_key for row in rows if row.delivered},
        failed={row.source_key: precision(row.error_code) for row in rows if not row.delivered},
        unclear={
            row.source_url: row.words
            for row in rows
            if not row.delivered and row.words and not precision(row.error_code)
        },
        started_at=session.started_at,
        running_at=session.running_at,
        documents={row.source_key for row in rows if row.delivered or row.status_code},
    )


async def job_kind(connection: AsyncConnection, crawl_id: str) -> JobKind | None:
    """By what was asked for here, or delivered of it; None where nothing tells."""
    asked = await connection.scalar(
        select(REQUESTS.c.options["kind"].astext).where(REQUESTS.c.crawl_id == crawl_id)
    )
    event_type = await connection.scalar(
        select(DELIVERIES.c.event_type).where(DELIVERIES.c.crawl_id == crawl_id).limit(1)
    )
    family = asked or (event_type or "").partition(".")[0]
    return JobKind(family) if family in set(JobKind) else None


def _missing(pages: Iterable[DeliveredPage], known: _Known) -> list[DeliveredPage]:
    """Pages that are not known yet, or only as failed, or less is known of why; each once, in the order to
    take them."""
    found: dict[UUID, DeliveredPage] = {}
    for page in pages:
        key = hash_key(page.source_url)
        if key in known.delivered or (page.failure and known.failed.get(key, -1) >= page.arrival.precision):
            continue
        found[key] = max(found.get(key, page), page, key=lambda each: each.arrival)
    for key, page in found.items():
        if page.failure:
            known.failed[key] = page.arrival.precision
        else:
            known.delivered.add(key)
    return sorted(found.values(), key=lambda page: page.source_url)


def _failed_pages(errors: JobErrors, status: JobStatus, known: _Known) -> list[DeliveredPage]:
    """When a page failed is Firecrawl's to say; robots.txt was read when the crawl began."""
    now, cancelled = datetime.now(UTC), status.status == "cancelled"
    failed = [
        failed_page(each.url, now, cause_of(each.error, each.code, crawl_cancelled=cancelled), each.at)
        for each in errors.errors
        if each.url
    ]
    told = {page.source_url for page in failed}
    dropped = [
        failed_page(url, now, cause_of(words, crawl_cancelled=True))
        for url, words in known.unclear.items()
        if cancelled and url not in told and tells_of_cancel(words)
    ]
    blocked = Cause(ROBOTS_BLOCKED, "robots.txt forbids this page", None)
    forbidden = [failed_page(url, now, blocked, known.started_at) for url in errors.robots_blocked]
    return failed + dropped + forbidden


def _last_failed_at(failed: Sequence[DeliveredPage], status: JobStatus) -> datetime | None:
    """When the last page failed that was scraped: by Firecrawl's clock where the end is told by it, too."""
    theirs = status.completed_at is not None
    times = [
        page.failed_at if theirs else page.arrival.received_at
        for page in failed
        if page.failed_at and page.error_code not in (DROPPED_BY_CANCEL, ROBOTS_BLOCKED)
    ]
    return max(times, default=None)


def _found(listing: Listing, known: _Known, nameless: int) -> Found:
    """What is missing though Firecrawl has it, or was asked for it; while it goes on more will come."""
    status = listing.status
    assert status is not None
    found = Found(ReconcileState.RUNNING, completed=status.completed, total=status.total)
    if not status.ended:
        return found
    urls = _unaccounted(known) if status.status == "completed" else []
    counted = max(len(known.documents) + nameless, listing.count)
    kept_back = max(status.completed - counted, 0)
    notes = []
    if kept_back:
        notes.append(TOO_MUCH.format(found=listing.count, promised=status.completed))
    if nameless:
        notes.append(NAMELESS.format(count=nameless))
    if urls:
        notes.append(NEITHER.format(count=len(urls), asked=len(known.asked)))
    if not notes:
        return replace(found, state=ReconcileState.SETTLED)
    missing = max(len(urls), kept_back, nameless)
    return replace(
        found, state=ReconcileState.INCOMPLETE, note="; ".join(notes), missing=missing, missing_urls=urls
    )


def _unaccounted(known: _Known) -> list[str]:
    """URLs of the batch of which nothing is known. Servers may spell one otherwise than it was given."""
    spelled = known.delivered | known.failed.keys()
    return [url for url in known.asked if not any(hash_key(each) in spelled for each in _spellings(url))]


def _spellings(url: str) -> Iterator[str]:
    yield url
    without_fragment = url.partition("#")[0]
    yield without_fragment
    parts = urlsplit(without_fragment)
    yield urlunsplit(parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()))
    yield urlunsplit(
        parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower(), path=parts.path or "/")
    )
    yield without_fragment.removesuffix("/")
