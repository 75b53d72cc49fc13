"""Pages as they are delivered: the better delivery wins, and a page with content is queued.

A page counts once, whatever is delivered or retried: its row is locked first, its crawl's session last.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, enqueue
from crawlscope.indexing.freshness import GONE_CODES, GONE_STATUSES
from crawlscope.pages.delivered import DeliveredPage, KnownPage
from crawlscope.pages.repository import (
    Source,
    count_settled,
    lock_delivered_pages,
    refresh_last_settled,
    store_delivered_pages,
)
from crawlscope.sessions.repository import Counts, SessionChange, change_sessions, counts_of


@dataclass
class Taken:
    """The effect of one delivery on its pages and their crawl."""

    counts: Counts = field(default_factory=Counts)
    settled_at: datetime | None = None
    """When a page without content settled last."""
    failures_without_url: int = 0
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
        self.counts += counts_of(after) - counts_of(before)
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
    taken, changed = [Taken() for _ in deliveries], dict[Source, KnownPage]()
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
    settled_at = await store_delivered_pages(connection, changed, queued)
    for (crawl_id, pages), effect in zip(deliveries, taken, strict=True):
        times = [settled_at.get((crawl_id, page.source_url)) for page in pages]
        effect.settled_at = max((at for at in times if at), default=None)
    return taken


async def change_crawls(
    connection: AsyncConnection,
    taken: Iterable[tuple[str, Taken]],
    measured: Mapping[str | None, SessionChange] | None = None,
) -> None:
    """Adds the effects of deliveries, and what was measured on them, to the sessions of their crawls: the
    last statements of a transaction, because they lock the sessions."""
    changes: dict[str | None, SessionChange] = defaultdict(SessionChange, measured or {})
    unsettled = set()
    effects = list(taken)
    for crawl_id, effect in effects:
        changes[crawl_id] += SessionChange(effect.counts, effect.settled_at, effect.failures_without_url)
        if effect.unsettled:
            unsettled.add(crawl_id)
    if unsettled:
        await refresh_last_settled(connection, unsettled)
    await change_sessions(connection, changes)
    count_settled(connection, Counter(state for _, effect in effects for state in effect.settled))
