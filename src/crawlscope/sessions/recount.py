"""Recomputes a session from the facts: its events, its pages and their operations.

The transactions that store facts also update the session. This verifies it, and repairs the session after a
defect of the program.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select, text, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import NotFoundError
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import PageState
from crawlscope.database.row_counts import recount_rows
from crawlscope.sessions.changes import TOTALLED, Counts, Histograms, counts_of, lock_session
from crawlscope.sessions.fold import Fact, fold, session_columns
from crawlscope.sessions.histograms import count_histograms, replace_histograms, stored_histograms
from crawlscope.sessions.repository import FACTS, SESSIONS, fact_from_json

DELIVERIES = models.table_of(models.Delivery)
PAGES = models.table_of(models.Page)
OPERATIONS = models.table_of(models.OperationMetric)
PRUNED = models.table_of(models.PrunedOperations)
COUNTED = (SESSIONS, OPERATIONS, models.table_of(models.RequestMetric))
"""The tables that `row_counts` has."""
_KEEP_IN_PLACE = text("LOCK TABLE webhook.operation_metrics_default IN ACCESS SHARE MODE")
"""No operations move from there to their month meanwhile: a statement that waits for that finds them in
neither, because it has been planned without the new partition."""


@dataclass(frozen=True)
class Difference:
    """A column of the session that differed from the facts."""

    was: Any
    counted: Any


async def recount(connection: AsyncConnection, crawl_id: str) -> dict[str, Difference]:
    """Corrects the session, and the numbers of rows; returns what differed, by column: as a rule nothing.

    Raises `NotFoundError`.
    """
    crawl_id = storable(crawl_id)
    rows = await _recount_rows(connection)  # first: no writer of the crawl waits for the whole tables
    await connection.execute(_KEEP_IN_PLACE)
    if not await lock_session(connection, crawl_id):  # before anything is counted: writers wait from here
        raise NotFoundError(f"Crawl not found: {crawl_id}")
    of_crawl = SESSIONS.c.crawl_id == crawl_id
    session = (await connection.execute(select(*SESSIONS.c).where(of_crawl))).mappings().one()
    lifecycle = fold(None, await known_facts(connection, crawl_id))
    counted = {
        **(session_columns(lifecycle) if lifecycle else {}),
        **await _page_columns(connection, crawl_id),
        **await _total_columns(connection, crawl_id),
    }
    differing = {
        name: Difference(session[name], value) for name, value in counted.items() if session[name] != value
    }
    if differing:
        values = {name: difference.counted for name, difference in differing.items()}
        await connection.execute(update(SESSIONS).where(of_crawl).values(**values))
    return differing | await _recount_histograms(connection, crawl_id) | rows


async def _recount_rows(connection: AsyncConnection) -> dict[str, Difference]:
    """The difference has the numbers by table, of tables that differ."""
    numbers = {table.name: await recount_rows(connection, table) for table in COUNTED}
    differing = {name: each for name, each in numbers.items() if each[0] != each[1]}
    if not differing:
        return {}
    was, counted = ({name: each[place] for name, each in differing.items()} for place in (0, 1))
    return {"row_counts": Difference(was, counted)}


async def _recount_histograms(connection: AsyncConnection, crawl_id: str) -> dict[str, Difference]:
    """The difference has the number of measurements by type, of types that differ."""
    stored = await stored_histograms(connection, crawl_id)
    counted = await count_histograms(connection, crawl_id)
    pruned = select(PRUNED.c.operation_type).where(PRUNED.c.crawl_id == crawl_id)
    kept = set(await connection.scalars(pruned))  # their operations cannot be counted any more
    counted = {
        **{key: each for key, each in counted.items() if key[1] not in kept},
        **{key: each for key, each in stored.items() if key[1] in kept},
    }
    if stored == counted:
        return {}
    await replace_histograms(connection, crawl_id, counted)
    differing = {key[1] for key in stored.keys() | counted.keys() if stored.get(key) != counted.get(key)}

    def numbers(of: Histograms) -> dict[str, int]:
        return {each: sum(of[key].count for key in of if key[1] == each) for each in sorted(differing)}

    return {"operation_histograms": Difference(numbers(stored), numbers(counted))}


async def known_facts(connection: AsyncConnection, crawl_id: str) -> list[Fact]:
    """The facts of a crawl, in no particular order."""
    delivered = await connection.execute(
        select(DELIVERIES.c.received_at, DELIVERIES.c.facts).where(DELIVERIES.c.crawl_id == crawl_id)
    )
    kept = await connection.execute(select(FACTS.c.at, FACTS.c.fact).where(FACTS.c.crawl_id == crawl_id))
    stored = [(row.received_at, fact) for row in delivered for fact in row.facts]
    stored += [(row.at, row.fact) for row in kept]
    read = [fact_from_json(at, fact) for at, fact in stored]
    return [fact for fact in read if fact is not None]


async def _page_columns(connection: AsyncConnection, crawl_id: str) -> dict[str, Any]:
    by_state = await connection.execute(
        select(PAGES.c.state, func.count(), func.max(PAGES.c.settled_at))
        .where(PAGES.c.crawl_id == crawl_id)
        .group_by(PAGES.c.state)
    )
    counts, settled = Counts(), []
    for state, number, settled_at in by_state:
        counts += counts_of(PageState(state)) * number
        settled += [settled_at] if settled_at else []
    nameless = await connection.scalar(
        select(func.sum(DELIVERIES.c.without_url)).where(DELIVERIES.c.crawl_id == crawl_id)
    )
    return {
        **asdict(counts),
        "failures_without_url": int(nameless or 0),
        "last_settled_at": max(settled, default=None),
    }


async def _total_columns(connection: AsyncConnection, crawl_id: str) -> dict[str, float]:
    """Present and pruned operations in one statement, which sees both before a pruning or both after it."""
    parts = union_all(
        select(OPERATIONS.c.operation_type, OPERATIONS.c.duration_ms.label("total_ms")).where(
            OPERATIONS.c.crawl_id == crawl_id, OPERATIONS.c.success
        ),
        select(PRUNED.c.operation_type, PRUNED.c.total_ms).where(PRUNED.c.crawl_id == crawl_id),
    ).subquery()
    sums = await connection.execute(
        select(parts.c.operation_type, func.sum(parts.c.total_ms).label("total"))
        .where(parts.c.operation_type.in_(list(TOTALLED)))
        .group_by(parts.c.operation_type)
    )
    by_type = {row.operation_type: row.total for row in sums}
    return {column: by_type.get(operation_type, 0.0) for operation_type, column in TOTALLED.items()}
