"""The SQL of crawl sessions: facts are folded in and counts moved under the lock of the session's row."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.crawls.fold import Fact, Heard, Lifecycle, fold, parse_moment, summarize
from crawlscope.crawls.page_state import Counts
from crawlscope.timing.store import ensure_session

SESSIONS = models.table_of(models.CrawlSession)


__all__ = ["apply_facts", "ensure_session", "move_counts"]

log = structlog.get_logger(__name__)


async def apply_facts(connection: AsyncConnection, crawl_id: str, facts: Iterable[Fact]) -> None:
    """Folds facts into the session, which must exist; its row stays locked until the commit."""
    facts = list(facts)
    row = (
        await connection.execute(
            select(SESSIONS.c.started_at, SESSIONS.c.last_fact_at, SESSIONS.c.fold)
            .where(SESSIONS.c.crawl_id == crawl_id)
            .with_for_update(key_share=True)
        )
    ).one()
    before = Lifecycle.from_json(row.started_at, row.last_fact_at, row.fold)
    after = fold(before, facts)
    _report_unusable_times(crawl_id, facts)
    if after != before:
        await connection.execute(
            update(SESSIONS)
            .where(SESSIONS.c.crawl_id == crawl_id)
            .values(**asdict(summarize(after)), last_fact_at=after.last_fact_at, fold=after.to_json())
        )


async def move_counts(
    connection: AsyncConnection,
    crawl_id: str,
    change: Counts,
    settled_at: datetime | None = None,
    failures_without_url: int = 0,
) -> None:
    """Adds to the counts; `settled_at` is when a page of the crawl settled, if one did."""
    moved = {name: getattr(SESSIONS.c, name) + value for name, value in asdict(change).items() if value}
    if failures_without_url:
        moved["failures_without_url"] = SESSIONS.c.failures_without_url + failures_without_url
    values: dict[str, object] = dict(moved)
    if settled_at:  # greatest() passes over NULL
        values["last_settled_at"] = func.greatest(SESSIONS.c.last_settled_at, settled_at)
    if values:
        await connection.execute(update(SESSIONS).where(SESSIONS.c.crawl_id == crawl_id).values(**values))


def _report_unusable_times(crawl_id: str, facts: Iterable[Fact]) -> None:
    for fact in facts:
        if isinstance(fact, Heard) and "initiated_at" in fact.metadata:
            value = fact.metadata["initiated_at"]
            if parse_moment(value) is None:
                log.warning("initiated_at_unreadable", crawl_id=crawl_id, value=str(value)[:100])
