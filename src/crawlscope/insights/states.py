"""The states of crawls by their rows: whether they are sealed, their verdicts, expected ends and baselines.

Each function needs a few queries for any number of crawls.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.expectations import ANY_SITE, Expectation
from crawlscope.core.vocabulary import CrawlStatus, Engine, ReconcileState
from crawlscope.insights import course, eta, queries
from crawlscope.insights.baseline import baseline
from crawlscope.insights.progress import Progress
from crawlscope.insights.queries import by_crawl, rows_of
from crawlscope.insights.schemas import (
    AggregateTiming,
    Baseline,
    CrawlState,
    ReconciliationInfo,
    Verdict,
)
from crawlscope.insights.sealing import Row, Sealing, sealing, searchable_at, time_to_searchable_ms
from crawlscope.insights.verdict import Asked, Evidence, PartOutage, judge

SiteExpectations = Mapping[str, Sequence[Expectation]]
"""By crawl URL; `ANY_SITE` has those of all sites."""
NO_WORK: dict[str, Any] = {
    "queued": 0,
    "indexing": 0,
    "oldest_queued_at": None,
    "oldest_started_at": None,
    "newest_started_at": None,
}


async def states_of(
    connection: AsyncConnection,
    sessions: Sequence[RowMapping],
    quiet_seconds: float,
    asks_firecrawl: bool,
) -> list[CrawlState]:
    """The states of crawls from rows of `queries.crawls`, in their order: a few queries for all of them."""
    crawl_ids = [session["crawl_id"] for session in sessions]
    checks = await by_crawl(connection, queries.reconciliations(crawl_ids))
    sealings = {
        each["crawl_id"]: sealing(each, checks.get(each["crawl_id"]), asks_firecrawl) for each in sessions
    }
    verdicts = await verdicts_of(connection, sessions, checks, sealings, quiet_seconds)
    at_firecrawl = [
        each["crawl_id"]
        for each in sessions
        if each["completed_at"] is None and each["engine"] != Engine.BUILTIN
    ]
    failed = await by_crawl(connection, queries.failed_at_crawler(at_firecrawl))
    cancels = await by_crawl(connection, queries.cancel_requests(crawl_ids))
    states = [
        _state(
            each,
            sealings[crawl_id],
            verdicts.get(crawl_id),
            checks.get(crawl_id),
            pages_expected=_pages_expected(each, checks.get(crawl_id), failed.get(crawl_id)),
            cancel_requested=crawl_id in cancels,
        )
        for crawl_id, each in zip(crawl_ids, sessions, strict=True)
    ]
    await _add_etas(connection, sessions, states)
    return states


async def _add_etas(
    connection: AsyncConnection, sessions: Sequence[RowMapping], states: Sequence[CrawlState]
) -> None:
    now = datetime.now(UTC)
    unfinished = [state.crawl_id for state in states if Progress.of(state).left]
    if not unfinished:
        return
    settled = await by_crawl(connection, queries.last_settlements(unfinished, eta.MAX_PAGES))
    for session, state in zip(sessions, states, strict=True):
        progress, times = Progress.of(state), settled.get(state.crawl_id)
        if times is None:
            continue
        limit = session["limit_asked"]
        may_grow = state.status is CrawlStatus.IN_PROGRESS and session["urls_asked"] is None
        state.eta = eta.estimate(
            eta.Remaining(
                now=now,
                settled_at=times["settled_at"],
                left=progress.left,
                found=progress.expected,
                limit=limit,
                grows=may_grow and (limit is None or progress.expected < limit),
            )
        )


def _state(
    session: RowMapping,
    sealing: Sealing,
    verdict: Verdict | None,
    check: RowMapping | None,
    **further: Any,
) -> CrawlState:
    compared = check is not None and check["state"] != ReconcileState.DUE
    return CrawlState(
        **session,
        **vars(sealing),
        **further,
        aggregate_timing=AggregateTiming(
            chunking_ms=session["total_chunking_ms"],
            embedding_ms=session["total_embedding_ms"],
            qdrant_ms=session["total_qdrant_ms"],
            bm25_ms=session["total_bm25_ms"],
        ),
        searchable_at=searchable_at(session),
        time_to_searchable_ms=time_to_searchable_ms(session),
        awaits=verdict.awaits if verdict else None,
        verdict=verdict,
        reconciliation=ReconciliationInfo(**check, note=check["error"]) if check and compared else None,
    )


def _pages_expected(session: RowMapping, check: RowMapping | None, failed: RowMapping | None) -> int | None:
    """Failed pages are added to Firecrawl's total, which no longer includes them."""
    if session["completed_at"] is not None:
        return None
    if session["engine"] == Engine.BUILTIN:
        return session["found"] or None
    if check is None or not check["total"]:
        asked: int | None = session["urls_asked"]
        return asked
    return int(check["total"] + (failed["pages"] if failed else 0))


async def verdicts_of(
    connection: AsyncConnection,
    sessions: Sequence[RowMapping],
    checks: Mapping[str, Row],
    sealings: Mapping[str, Sealing],
    quiet_seconds: float,
) -> dict[str, Verdict]:
    """The verdicts on the crawls that are not sealed, by crawl id. `checks` are rows of `reconciliations`."""
    crawls = {each["crawl_id"]: each for each in sessions if not sealings[each["crawl_id"]].sealed}
    if not crawls:
        return {}
    now = datetime.now(UTC)
    in_progress = await by_crawl(connection, queries.work_in_progress(list(crawls)))
    not_begun = await by_crawl(connection, queries.waiting_for_crawler(list(crawls)))
    settled = await rows_of(connection, queries.last_settled())
    outages = await outages_at(connection, now)

    def evidence(crawl_id: str, session: RowMapping) -> Evidence:
        work, waiting = in_progress.get(crawl_id), not_begun.get(crawl_id)
        others = (row["last_settled_at"] for row in settled if row["crawl_id"] != crawl_id)
        return Evidence(
            now=now,
            completeness=sealings[crawl_id].completeness,
            last_fact_at=session["last_fact_at"],
            last_settled_at=session["last_settled_at"],
            **{name: work[name] if work else default for name, default in NO_WORK.items()},
            others_settled_at=next(others, None),
            outages=outages,
            quiet_seconds=quiet_seconds,
            builtin=session["engine"] == Engine.BUILTIN,
            reservation=sealings[crawl_id].reservation,
            asked=Asked.of(checks.get(crawl_id)),
            received=session["total_pages"] + session["pages_pending"] + session["pages_cancelled"],
            crawler_asked_at=waiting["requested_at"] if waiting else None,
            crawls_in_progress=waiting["others"] if waiting else 0,
        )

    return {crawl_id: judge(evidence(crawl_id, session)) for crawl_id, session in crawls.items()}


async def outages_at(connection: AsyncConnection, now: datetime) -> list[PartOutage]:
    """The parts that workers wait for at this moment."""
    reported = await rows_of(connection, queries.outages(now - course.OUTAGE_REPORT_LASTS))
    return [PartOutage(row["part"], row["since"], row["reason"]) for row in reported]


async def baseline_of(
    connection: AsyncConnection, session: RowMapping, expectations: SiteExpectations
) -> Baseline | None:
    """The baseline of a crawl by its row of `crawl_sessions`; None until it is completed and searchable."""
    earlier = await rows_of(connection, queries.earlier_crawls(session, queries.MAX_EARLIER_CRAWLS))
    expected = [*expectations.get(session["crawl_url"], ()), *expectations.get(ANY_SITE, ())]
    return baseline(session, earlier, expected)
