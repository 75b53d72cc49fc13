"""Compares a crawl with Firecrawl's API: fetches pages that no delivery brought, records failed pages, and
takes over the end of the crawl."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import FirecrawlJobUnknown, FirecrawlRefused, FirecrawlUnavailable
from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import CrawlStatus, Engine, PageState, ReconcileState
from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconciliations import Found
from crawlscope.crawls.repository import find_request, job_kind
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
    mentions_cancel,
    precision,
)
from crawlscope.pages.delivered import DeliveredPage
from crawlscope.pages.receive import PageDelivery, receive_pages
from crawlscope.pages.repository import known_pages
from crawlscope.sessions.fold import PageSeen, StatusAnswer
from crawlscope.sessions.repository import (
    find_session,
    keep_fact,
    require_session,
)

TOO_MUCH = "Firecrawl returns {found:,} of the {promised:,} documents that it counts"
NAMELESS = "{count:,} of the documents that Firecrawl returns name no URL"
NEITHER = "{count:,} of the {asked:,} URLs of the batch brought neither a page nor an error"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reconciled:
    """The result of a comparison. Its counts are of pages whose state it has changed."""

    crawl_id: str
    status: CrawlStatus
    state: ReconcileState
    added: int = 0
    """Pages that were fetched, and queued to be indexed."""
    failed: int = 0
    cancelled: int = 0
    note: str | None = None
    """The reason why the comparison is not done, or the pages that stay missing."""


@dataclass
class _Known:
    """The crawl's state here before Firecrawl is asked."""

    kind: JobKind | None
    builtin: bool
    asked: Sequence[str]
    """The URLs of a batch scrape that was requested here."""
    delivered: set[UUID]
    """Source keys of the pages whose content is known."""
    failed: dict[UUID, int]
    """Source keys of all other pages, and how precise their cause is; see `causes.precision`."""
    unclear: dict[str, str]
    """By URL the error of each page that failed for no clear reason."""
    started_at: datetime
    running_at: datetime | None
    """When the crawl was last known to run."""
    documents: set[UUID]
    """Source keys of the pages that brought a document, error pages included."""


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
        """Asks for the crawl's status, and compares the crawl if it has ended. Raises like `reconcile`."""
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
        await self._keep_status(crawl_id, status)
        took = datetime.now(UTC) - asked_at

        async def note(connection: AsyncConnection) -> None:
            await require_session(connection, crawl_id)
            await reconciliations.note_running(connection, crawl_id, status.completed, status.total, took)

        await self._database.run(note)

    async def reconcile(self, crawl_id: str) -> Reconciled:
        """Safe at any time and any number of times; what was found stays, however it ends.

        Raises `NotFoundError`, `FirecrawlUnavailable` and `FirecrawlRefused`.
        """
        crawl_id, asked_at = storable(crawl_id), datetime.now(UTC)
        known = await self._database.run(lambda connection: _known(connection, crawl_id))
        if known.builtin:
            return await self._note(crawl_id, asked_at, Found(ReconcileState.SETTLED))
        try:
            return await self._compare(crawl_id, known, asked_at)
        except FirecrawlJobUnknown as error:
            return await self._forgotten(crawl_id, asked_at, error)
        except (FirecrawlUnavailable, FirecrawlRefused) as error:
            await self._note_failure(crawl_id, error)
            raise

    async def take_over_status(self, crawl_id: str) -> None:
        """Takes over the crawl's status only. Raises like `reconcile`, and `FirecrawlJobUnknown`."""
        kind = await self._database.run(lambda connection: job_kind(connection, crawl_id))
        await self._keep_status(crawl_id, await self._firecrawl.status(crawl_id, kind))

    async def _note_failure(self, crawl_id: str, error: FirecrawlUnavailable | FirecrawlRefused) -> None:
        wait = error.retry_after if isinstance(error, FirecrawlUnavailable) else None

        async def note(connection: AsyncConnection) -> None:
            await require_session(connection, crawl_id)
            await reconciliations.note_failure(connection, crawl_id, str(error), wait)

        await self._database.run(note)

    async def _forgotten(self, crawl_id: str, asked_at: datetime, error: FirecrawlJobUnknown) -> Reconciled:
        state = ReconcileState.EXPIRED if error.expired else ReconcileState.UNKNOWN
        return await self._note(crawl_id, asked_at, Found(state, note=str(error)))

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
        # When the last scraped page failed: by Firecrawl's clock if that dates the crawl's end, too.
        theirs = listing.status.completed_at is not None
        times = [
            page.failed_at if theirs else page.arrival.received_at
            for page in failed
            if page.failed_at and page.error_code not in (DROPPED_BY_CANCEL, ROBOTS_BLOCKED)
        ]
        await self._keep_status(crawl_id, listing.status, max(times, default=None), known.running_at)
        return await self._note(crawl_id, asked_at, _found(listing, known, nameless), findings)

    async def _take(self, crawl_id: str, pages: Sequence[DeliveredPage]) -> _Findings:
        if not pages:
            return _Findings()

        async def take(connection: AsyncConnection) -> _Findings:
            await require_session(connection, crawl_id)
            [effect] = await receive_pages(connection, [PageDelivery(crawl_id, pages)])
            seen = min(page.source_url for page in pages)
            fetched = PageSeen(datetime.now(UTC), seen, fetched=True)
            await keep_fact(connection, crawl_id, fetched, "fetched")
            return _Findings(
                len(effect.job_ids),
                effect.settled.count(PageState.FAILED),
                effect.settled.count(PageState.CANCELLED),
            )

        return await self._database.run(take)

    async def _keep_status(
        self,
        crawl_id: str,
        status: JobStatus,
        failed_at: datetime | None = None,
        running_at: datetime | None = None,
    ) -> None:
        """`failed_at` is when the last page failed, `running_at` when the crawl was last known to run."""
        answer = StatusAnswer(
            datetime.now(UTC),
            CrawlStatus(status.status) if status.ended else None,
            status.created_at,
            status.completed_at if status.ended else None,
            error_words(status.error),
            failed_at,
            running_at if status.ended else None,
        )
        identity = [
            str(each) for each in (answer.ended, answer.created_at, answer.completed_at, answer.error)
        ]
        identity += [str(failed_at)] if failed_at else []

        async def keep(connection: AsyncConnection) -> None:
            await require_session(connection, crawl_id)
            await keep_fact(connection, crawl_id, answer, "told", *identity)

        await self._database.run(keep)

    async def _note(
        self, crawl_id: str, asked_at: datetime, found: Found, findings: _Findings | None = None
    ) -> Reconciled:
        findings = findings or _Findings()
        found = replace(found, added=findings.added)

        async def keep(connection: AsyncConnection) -> CrawlStatus:
            await require_session(connection, crawl_id)
            await reconciliations.note_check(connection, crawl_id, found, asked_at)
            session = await find_session(connection, crawl_id)
            assert session is not None
            return CrawlStatus(session.status)

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
    session = await find_session(connection, crawl_id)
    assert session is not None
    request = await find_request(connection, crawl_id)
    rows = await known_pages(connection, crawl_id)
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
        running_at=await reconciliations.last_running_at(connection, crawl_id),
        documents={row.source_key for row in rows if row.delivered or row.status_code},
    )


def _missing(pages: Iterable[DeliveredPage], known: _Known) -> list[DeliveredPage]:
    """New pages, and failed ones of which these bring the content or a more precise cause; each once, in the
    order of their URLs."""
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
    """Their times are Firecrawl's; robots.txt was read when the crawl began."""
    now, cancelled = datetime.now(UTC), status.status == "cancelled"
    failed = [
        failed_page(each.url, now, cause_of(each.error, each.code, crawl_cancelled=cancelled), each.at)
        for each in errors.errors
        if each.url
    ]
    named = {page.source_url for page in failed}
    dropped = [
        failed_page(url, now, cause_of(words, crawl_cancelled=True))
        for url, words in known.unclear.items()
        if cancelled and url not in named and mentions_cancel(words)
    ]
    blocked = Cause(ROBOTS_BLOCKED, "robots.txt forbids this page", None)
    forbidden = [failed_page(url, now, blocked, known.started_at) for url in errors.robots_blocked]
    return failed + dropped + forbidden


def _found(listing: Listing, known: _Known, nameless: int) -> Found:
    """The pages that are missing although Firecrawl has them or was to fetch them; none yet for a running
    crawl."""
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
    """URLs of the batch without a page or an error. Servers may spell one otherwise than it was given."""

    def spellings(url: str) -> Iterator[str]:
        yield url
        without_fragment = url.partition("#")[0]
        yield without_fragment
        parts = urlsplit(without_fragment)
        lower = parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower())
        yield urlunsplit(lower)
        yield urlunsplit(lower._replace(path=parts.path or "/"))
        yield without_fragment.removesuffix("/")

    keys = known.delivered | known.failed.keys()
    return [url for url in known.asked if not any(hash_key(each) in keys for each in spellings(url))]
