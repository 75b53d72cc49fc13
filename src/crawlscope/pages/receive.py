"""Pages as they are delivered: the better delivery wins, and a page with content is queued.

A page counts once, whatever is delivered or retried: its row is locked first, its crawl's session last.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import GONE_CODES, GONE_STATUSES
from crawlscope.pages.delivered import DeliveredPage, KnownPage
from crawlscope.pages.repository import (
    Source,
    lock_delivered_pages,
    refresh_last_settled,
    store_delivered_pages,
)
from crawlscope.sessions.repository import SessionChange
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.store import write_changes
from crawlscope.timing.telemetry import meters


@dataclass
class Taken:
    """The effect of one delivery on its pages and their crawl."""

    crawl_id: str
    change: SessionChange
    """Of the crawl, by all deliveries of the transaction."""
    job_ids: list[int] = field(default_factory=list)
    settled: list[PageState] = field(default_factory=list)
    """The states of pages without content that changed."""
    unsettled: bool = False
    """Whether a page was settled before: now it waits again, or settled at another time."""
    reworded: bool = False
    """Whether the cause of a failure changed."""

    @property
    def touched(self) -> bool:
        return bool(self.job_ids or self.settled)

    def note(self, before: PageState | None, after: PageState | None, failure: PageState | None) -> None:
        """`failure` is the state of a page without content."""
        self.change.move_page(before, after)
        self.unsettled = self.unsettled or (before is not None and before.settled)
        if failure and failure is before:
            self.reworded = True
        elif failure:
            self.settled.append(failure)


async def take_pages(
    connection: AsyncConnection, deliveries: Sequence[tuple[str, Sequence[DeliveredPage]]]
) -> list[Taken]:
    """Receives the pages of deliveries, each with its crawl, as if one came after the other. Stores them and
    queues those with content, unless another delivery of a page is better.

    Returns the effect of each delivery. The caller changes the sessions with `change_crawls`, last in its
    transaction.
    """
    sources = [(crawl_id, page.source_url) for crawl_id, pages in deliveries for page in pages]
    known = await lock_delivered_pages(connection, list(dict.fromkeys(sources)))
    changes, changed = defaultdict[str, SessionChange](SessionChange), dict[Source, KnownPage]()
    taken = [Taken(crawl_id, changes[crawl_id]) for crawl_id, _ in deliveries]
    jobs: list[tuple[dict[str, Any], Source, Taken]] = []
    for (crawl_id, pages), effect in zip(deliveries, taken, strict=True):
        for page in pages:
            source = crawl_id, page.source_url
            before, after = known[source], known[source].after(page)
            if after is before:
                continue
            known[source] = changed[source] = after
            effect.note(before.state, after.state, page.failure)
            if not page.failure:
                jobs.append(({"page_id": after.id, "revision": after.revision}, source, effect))
            elif page.status_code in GONE_STATUSES or page.error_code in GONE_CODES:
                jobs.append(({"page_id": after.id, "gone": True}, source, effect))
    queued = {}
    job_ids = await enqueue(connection, INDEX_PAGE, [payload for payload, _, _ in jobs])
    for job_id, (payload, source, effect) in zip(job_ids, jobs, strict=True):
        if "revision" in payload:
            effect.job_ids.append(job_id)
            queued[source] = job_id
    for (crawl_id, _), at in (await store_delivered_pages(connection, changed, queued)).items():
        changes[crawl_id].settle(at)
    return taken


async def change_crawls(
    connection: AsyncConnection,
    taken: Sequence[Taken],
    measured: Sequence[Measurement] = (),
) -> None:
    """Adds the effects of deliveries, and what was measured on them, to the sessions of their crawls: the
    last statements of a transaction, because they lock the sessions."""
    if unsettled := {effect.crawl_id for effect in taken if effect.unsettled}:
        await refresh_last_settled(connection, unsettled)
    await write_changes(connection, {effect.crawl_id: effect.change for effect in taken}, measured)
    meters.pages_settled(connection, Counter(state for effect in taken for state in effect.settled))
