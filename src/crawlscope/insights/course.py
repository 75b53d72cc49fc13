"""Reads the course of a crawl: its events over time, and the use of its time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from os import cpu_count

from sqlalchemy import RowMapping, TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import DatabaseUnavailable, EmbedderUnavailable, IndexUnavailable
from crawlscope.core.settings import EMBEDDERS_IN_WORKERS
from crawlscope.indexing.generations import repository as generations
from crawlscope.insights import course_queries, queries
from crawlscope.insights.diagnosis import (
    GIANT_CHUNKS,
    LATE_SECONDS,
    BrokenAttempts,
    CrawlEvidence,
    Giants,
    SiteTimes,
)
from crawlscope.insights.queries import by_crawl
from crawlscope.insights.schemas import IdleTime, StageTime
from crawlscope.insights.timeline import Span, TimelineRows

OUTAGE_REPORT_LASTS = timedelta(minutes=2)
"""Workers report an outage more often; the report of a worker that has ended is older."""
PARTS = (EmbedderUnavailable.part, IndexUnavailable.part, DatabaseUnavailable.part)


async def timeline_rows(connection: AsyncConnection, session: RowMapping, span: Span) -> TimelineRows:
    """One query for each kind, for any number of buckets."""
    crawl_id = session["crawl_id"]
    values = {
        "crawl_id": crawl_id,
        "began_at": span.began_at,
        "ended_at": span.ended_at,
        "buckets": span.buckets,
        "bucket_ms": span.bucket_seconds * 1000,
        "report_lasts": OUTAGE_REPORT_LASTS,
    }

    async def rows(statement: TextClause) -> Sequence[RowMapping]:
        return (await connection.execute(statement, values)).mappings().all()

    return TimelineRows(
        pages=await rows(course_queries.PAGES_PER_BUCKET),
        stages=await rows(course_queries.STAGES_PER_BUCKET),
        moves=await rows(course_queries.MOVES_PER_BUCKET),
        broken=await rows(course_queries.BROKEN_ATTEMPTS_PER_BUCKET),
        actions=await rows(course_queries.ACTIONS),
        outages=await rows(course_queries.OUTAGES_BETWEEN),
        check=(await by_crawl(connection, queries.reconciliations([crawl_id]))).get(crawl_id),
    )


async def evidence(connection: AsyncConnection, session: RowMapping) -> CrawlEvidence:
    now = datetime.now(UTC)
    span = Span.of(session, now, buckets=1)
    values = {
        "crawl_id": session["crawl_id"],
        "now": now,
        "began_at": span.began_at,
        "crawled_at": max(session["completed_at"] or span.ended_at, span.began_at),
        "late_after": timedelta(seconds=LATE_SECONDS),
        "giant_chunks": GIANT_CHUNKS,
        "report_lasts": OUTAGE_REPORT_LASTS,
    }
    spent = (await connection.execute(course_queries.TIME_SPENT, values)).mappings().one()
    stages = (await connection.execute(course_queries.STAGE_TIMES, values)).mappings().all()
    site = (await connection.execute(course_queries.SITE_TIMES, values)).mappings().one_or_none()
    serving = (await generations.live(connection)).serving
    lengths, broken, code = spent["lengths"], spent["broken_attempts"], None
    if broken:
        code = await connection.scalar(course_queries.CAUSE_OF_RETRIES, values)
    return CrawlEvidence(
        wall_ms=lengths["wall"],
        busy_ms=lengths["busy"],
        late_ms=lengths["late"],
        idle=IdleTime(**{f"{name}_ms": lengths[name] for name in ("crawler", "queue", *PARTS)}),
        stages={row["operation_type"]: StageTime.of(row["work_ms"], row["wall_ms"]) for row in stages},
        received=session["total_pages"] + session["pages_pending"],
        attempts=spent["attempts"],
        attempts_ms=spent["worked_ms"],
        workers=spent["workers"],
        cores=cpu_count() or 1,
        local_embedder=serving is None or serving.recipe.identity.embedder in EMBEDDERS_IN_WORKERS,
        giants=Giants(
            pages=spent["giants"],
            work_ms=spent["giant_ms"],
            late_ms=lengths["late_giants"],
            most_chunks=spent["most_chunks"] or 0,
            usual_chunks=spent["usual_chunks"] or 0.0,
        ),
        broken=BrokenAttempts(broken, spent["wasted_ms"], lengths["late_again"], code),
        site=SiteTimes(**site) if site else None,
        refused_pages=await connection.scalar(course_queries.REFUSED_PAGES, values) or 0,
    )
