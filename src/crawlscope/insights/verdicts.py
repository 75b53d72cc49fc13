"""Gathers the evidence for the verdicts on crawls that are not sealed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import Engine
from crawlscope.insights import queries
from crawlscope.insights.responses import Verdict
from crawlscope.insights.rows import by_crawl, rows_of
from crawlscope.insights.sealing import Row, Sealing
from crawlscope.insights.verdict import Asked, Evidence, PartAway, judge

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
    connection: AsyncConnection,
    sessions: Sequence[RowMapping],
    checks: Mapping[str, Row],
    sealings: Mapping[str, Sealing],
    quiet_seconds: float,
) -> dict[str, Verdict]:
    """By crawl id, for those that are not sealed. `checks` are rows of `reconciliations`."""
    crawls = {each["crawl_id"]: each for each in sessions if not sealings[each["crawl_id"]].sealed}
    if not crawls:
        return {}
    now = datetime.now(UTC)
    in_hand = await by_crawl(connection, queries.work_in_hand(list(crawls)))
    not_begun = await by_crawl(connection, queries.waiting_for_crawler(list(crawls)))
    settled = await rows_of(connection, queries.last_settled())
    away = [
        PartAway(row["part"], row["since"], row["reason"])
        for row in await rows_of(connection, queries.outages(now - REPORT_LASTS))
    ]
    verdicts: dict[str, Verdict] = {}
    for crawl_id, session in crawls.items():
        sealing, waiting = sealings[crawl_id], not_begun.get(crawl_id)
        judgement = judge(
            Evidence(
                now=now,
                completeness=sealing.completeness,
                last_fact_at=session["last_fact_at"],
                last_settled_at=session["last_settled_at"],
                **_work(in_hand.get(crawl_id)),
                others_settled_at=next(
                    (row["last_settled_at"] for row in settled if row["crawl_id"] != crawl_id), None
                ),
                parts_away=away,
                quiet_seconds=quiet_seconds,
                builtin=session["engine"] == Engine.BUILTIN,
                reservation=sealing.reservation,
                asked=_asked(checks.get(crawl_id)),
                received=sum(session[name] for name in ("total_pages", "pages_pending", "pages_cancelled")),
                crawler_asked_at=waiting["requested_at"] if waiting else None,
                crawls_in_hand=waiting["others"] if waiting else 0,
            )
        )
        verdicts[crawl_id] = Verdict(
            verdict=judgement.name,
            since=judgement.since,
            stage=judgement.stage,
            reason=judgement.reason,
            awaits=judgement.awaits,
        )
    return verdicts


def _work(row: RowMapping | None) -> dict[str, Any]:
    return {name: row[name] if row else nothing for name, nothing in _NOTHING.items()}


def _asked(check: Row | None) -> Asked:
    if check is None:
        return Asked()
    return Asked(
        failures=check["failures"],
        error=check["error"],
        next_at=check["next_check_at"],
        running_at=check["running_at"],
        completed=check["completed"],
        total=check["total"],
    )
