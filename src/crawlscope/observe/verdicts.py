"""Gathers the evidence for the verdicts on open crawls."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.observe import queries
from crawlscope.observe.responses import Verdict
from crawlscope.observe.rows import by_crawl, rows_of
from crawlscope.observe.verdict import Evidence, PartAway, judge

REPORT_LASTS = timedelta(minutes=2)
"""A worker that waits for a part says so more often: one that is silent for longer is gone."""
_NOTHING = {
    "queued": 0,
    "indexing": 0,
    "oldest_queued_at": None,
    "oldest_started_at": None,
    "newest_started_at": None,
}


async def verdicts_of(
    connection: AsyncConnection, sessions: Sequence[RowMapping], quiet_seconds: float
) -> dict[str, Verdict]:
    """By crawl id, for those that are open."""
    crawls = {each["crawl_id"]: each for each in sessions if _is_open(each)}
    if not crawls:
        return {}
    now = datetime.now(UTC)
    in_hand = await by_crawl(connection, queries.work_in_hand(list(crawls)))
    settled = await rows_of(connection, queries.last_settled())
    away = [
        PartAway(row["part"], row["since"], row["reason"])
        for row in await rows_of(connection, queries.outages(now - REPORT_LASTS))
    ]
    verdicts: dict[str, Verdict] = {}
    for crawl_id, session in crawls.items():
        judgement = judge(
            Evidence(
                now=now,
                ended=session["completed_at"] is not None,
                last_fact_at=session["last_fact_at"],
                last_settled_at=session["last_settled_at"],
                **_work(in_hand.get(crawl_id)),
                others_settled_at=next(
                    (row["last_settled_at"] for row in settled if row["crawl_id"] != crawl_id), None
                ),
                parts_away=away,
                quiet_seconds=quiet_seconds,
            )
        )
        if judgement:
            verdicts[crawl_id] = Verdict(
                verdict=judgement.name,
                since=judgement.since,
                stage=judgement.stage,
                reason=judgement.reason,
            )
    return verdicts


def _work(row: RowMapping | None) -> dict[str, Any]:
    return {name: row[name] if row else nothing for name, nothing in _NOTHING.items()}


def _is_open(session: RowMapping) -> bool:
    return session["completed_at"] is None or bool(session["pages_pending"])
