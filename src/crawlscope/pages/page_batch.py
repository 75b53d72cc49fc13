"""Several pages at once: what they change in their crawl adds up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import PageState
from crawlscope.pages.pages import DeliveredPage, receive_page
from crawlscope.sessions.counts import Counts
from crawlscope.sessions.store import find_last_settled


@dataclass
class Taken:
    change: Counts = field(default_factory=Counts)
    job_ids: list[int] = field(default_factory=list)
    settled: list[PageState] = field(default_factory=list)
    """The states of pages that came without content, as far as this was news."""
    settled_at: datetime | None = None
    reworded: bool = False
    """Whether why a page failed is news, though not that it did."""

    @property
    def touched(self) -> bool:
        return bool(self.job_ids or self.settled)


async def take_pages(connection: AsyncConnection, crawl_id: str, pages: Sequence[DeliveredPage]) -> Taken:
    """The counts are the caller's to move. Pages must be in the order of their URLs, and the crawl's session
    is locked after all of them: two that take the same ones then cannot wait for each other."""
    taken, unsettled = Taken(), False
    for page in pages:
        received = await receive_page(connection, crawl_id, page)
        taken.change += received.change
        unsettled = unsettled or received.unsettled
        taken.reworded = taken.reworded or received.reworded
        if received.job_id is not None:
            taken.job_ids.append(received.job_id)
        if received.settled_at is not None and page.failure:
            taken.settled.append(page.failure)
            taken.settled_at = max(received.settled_at, taken.settled_at or received.settled_at)
    if unsettled:
        await find_last_settled(connection, crawl_id)
    return taken
