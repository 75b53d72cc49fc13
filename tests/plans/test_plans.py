"""An index serves each query of the recorder. Rows are made by SQL here: plans are asserted, never counts."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Select, TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import ChangeKind, CrawlStatus, PageState
from crawlscope.database.engine import Database
from crawlscope.insights import change_queries, course_queries, inspection_queries, queries
from crawlscope.insights.inspection_queries import SpanOrder, WhichPages
from crawlscope.insights.queries import PageSort
from crawlscope.pages.receive import LOCK_SOURCES
from crawlscope.pages.retention import ranked_contents
from crawlscope.timing.partitions import make_partitions
from crawlscope.webhooks.retention import old_bodies

ROWS = 50_000
CRAWLS = 500
"""So many of the crawls have pages, operations and deliveries, 100 of each kind."""
FILL = f"""
SET LOCAL session_replication_role = replica;
INSERT INTO webhook.crawl_sessions (crawl_id, crawl_url, started_at, status)
  SELECT 'crawl-' || n, 'https://a.example/' || n % 100, now() - n * interval '1 minute',
         CASE n % 10 WHEN 0 THEN 'failed' ELSE 'completed' END
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.pages
    (crawl_id, source_key, source_url, url, document_key, state, delivered, received_at, settled_at,
     settled_in)
  SELECT 'crawl-' || n % {CRAWLS} + 1, gen_random_uuid(), 'https://a.example/' || n,
         'https://a.example/' || n, gen_random_uuid(),
         CASE n % 20 WHEN 0 THEN 'failed' ELSE 'indexed' END, true, now(), now(), n
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.page_contents (page_id, markdown) SELECT id, 'text' FROM webhook.pages;
INSERT INTO webhook.page_attempts (page_id, number, revision, worker, started_at)
  SELECT id, 1, 1, 'worker-1', now() FROM webhook.pages;
INSERT INTO webhook.deliveries (crawl_id, identity, event_type, received_at, body, body_bytes)
  SELECT 'crawl-' || n % {CRAWLS} + 1, gen_random_uuid(), 'crawl.page', now() - n * interval '1 second',
         CASE WHEN n < 1000 THEN ''::bytea END, 0
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.crawl_facts (crawl_id, identity, at, fact)
  SELECT 'crawl-' || n % {CRAWLS} + 1, gen_random_uuid(), now(), '{{"heard": "request"}}'
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.operation_metrics
    (timestamp, operation_type, operation_name, duration_ms, success, job_id, crawl_id, document_url)
  SELECT now() - n * interval '1 minute', 'embedding', 'embed_batch', n % 97, true, n::text,
         'crawl-' || n % {CRAWLS} + 1, 'https://a.example/' || n
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.operation_histograms
    (crawl_id, hour, operation_type, count, failed, total_ms, failed_ms, buckets, counts)
  SELECT 'crawl-' || n, date_trunc('hour', now() - n * interval '10 minutes'), 'embedding', 1, 0, 1, 0,
         ARRAY[n % 500], ARRAY[1]
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.hour_histograms
    (hour, operation_type, count, failed, total_ms, failed_ms, buckets, counts)
  SELECT hour, operation_type, count(*), 0, sum(total_ms), 0, ARRAY[1], ARRAY[count(*)]
  FROM webhook.operation_histograms WHERE hour < now() - interval '2 hours' GROUP BY hour, operation_type;
INSERT INTO webhook.request_metrics (timestamp, method, path, status_code, duration_ms)
  SELECT now() - n * interval '1 minute', 'GET', '/api/stats', 200, 1 FROM generate_series(1, {ROWS}) n;
ANALYZE;
"""
PARTITIONED = """
SELECT part.relname, whole.relname FROM pg_inherits
JOIN pg_class part ON part.oid = inhrelid JOIN pg_class whole ON whole.oid = inhparent
"""
"""The table or index that each partition is a part of."""
NOW = datetime.now(UTC)
LATELY, A_DAY_AGO = NOW - timedelta(hours=1), NOW - timedelta(days=1)
LISTED = [f"crawl-{number}" for number in range(1, 6)]

SERVED_BY = {
    "newest crawls": (queries.crawls(), "ix_crawl_sessions_started_at"),
    "crawls of some time": (queries.crawls(since=LATELY, until=NOW), "ix_crawl_sessions_started_at"),
    "failed crawls": (queries.crawls(CrawlStatus.FAILED), "ix_crawl_sessions_st"),
    "running crawls": (queries.crawls(CrawlStatus.IN_PROGRESS), "ix_crawl_sessions_st"),
    "one crawl": (queries.crawl("crawl-7"), "uq_crawl_sessions_crawl_id"),
    "earlier crawls of its site": (
        queries.earlier_crawls(
            {"crawl_id": "crawl-7", "crawl_url": "https://a.example/7", "started_at": datetime.now(UTC)},
            50,
        ),
        "ix_crawl_sessions_site",
    ),
    "its operations": (queries.page_metrics("crawl-7"), "ix_operation_metrics_crawl_id"),
    "durations of listed crawls": (queries.histograms(LISTED), "uq_operation_histograms_crawl_id_hour"),
    "newest pages": (queries.pages("crawl-7"), "pages_crawl_id"),
    "slowest pages": (queries.pages("crawl-7", sort=PageSort.SLOWEST), "pages_crawl_id"),
    "failed pages": (queries.pages("crawl-7", PageState.FAILED), "ix_pages_crawl_id_state"),
    "a page": (queries.page_id("crawl-7", "https://a.example/7"), "source_key"),
    "its attempts": (queries.attempts(7), "uq_page_attempts_page_id_number"),
    "deliveries": (queries.deliveries("crawl-7"), "uq_deliveries_crawl_id_identity"),
    "last settlements": (queries.last_settlements(LISTED, 256), "pages_crawl_id"),
    "newest operations": (queries.operations(), "ix_operation_metrics_timestamp"),
    "operations of a type": (
        queries.operations(operation_type="embedding"),
        "ix_operation_metrics_timestamp",
    ),
    "operations of a crawl": (
        queries.operations(crawl_id="crawl-7"),
        "ix_operation_metrics_crawl_id_timestamp",
    ),
    "operations of a job": (queries.operations(job_id="7"), "ix_operation_metrics_job_id"),
    "operations on a document": (
        queries.operations(document_url="https://a.example/7"),
        "ix_operation_metrics_document_url",
    ),
    "newest requests": (queries.requests(), "ix_request_metrics_timestamp"),
}
FOLLOWED = {
    "pages that settled": (queries.settled_pages({"crawl-7": (9, 9)}, 200), "ix_pages_crawl_id_settled_in"),
    "watched crawls": (queries.watched_crawls(["crawl-7"], 0), "uq_crawl_sessions_crawl_id"),
    "listed crawls": (queries.watched_crawls(["crawl-7"], 50), "ix_crawl_sessions_started_at"),
}
DELIVERED_BY = inspection_queries.deliveries_of_page("crawl-7", "a-webhook")
INSPECTED = {
    "pages as they began": (
        inspection_queries.spans("crawl-7", WhichPages(), SpanOrder.STARTED),
        "pages_crawl_id",
    ),
    "failed pages of a cause": (
        inspection_queries.spans("crawl-7", WhichPages(PageState.FAILED, cause="http_404"), SpanOrder.URL),
        "pages_crawl_id",
    ),
    "number of failed pages": (
        inspection_queries.count_of_spans("crawl-7", WhichPages(PageState.FAILED)),
        "pages_crawl_id",
    ),
    "times of a crawl": (inspection_queries.span_of_crawl("crawl-7"), "pages_crawl_id"),
    "causes": (inspection_queries.causes("crawl-7"), "pages_crawl_id"),
    "pages of a cause": (inspection_queries.urls_of_cause("crawl-7", "http_404"), "pages_crawl_id"),
    "a page with its text": (inspection_queries.page("crawl-7", "https://a.example/7"), "pages_source_key"),
    "its history": (inspection_queries.history_of_page("https://a.example/7"), "pages_source_key"),
    "its operations": (
        inspection_queries.operations_of_page("crawl-7", "https://a.example/7"),
        "ix_operation_metrics",
    ),
    "its delivery": (DELIVERED_BY, "deliveries_crawl_id"),
    "throughput": (inspection_queries.throughput(LATELY), "ix_operation_metrics_timestamp"),
    "errors": (inspection_queries.recent_errors(LATELY), "ix_operation_metrics_timestamp"),
}
SOME_KEYS = (UUID(int=1 << 118), UUID(int=2 << 118))
PRUNED = {
    "contents of some documents": (select(ranked_contents(*SOME_KEYS)), "ix_pages_document_key"),
    "bodies of old deliveries": (old_bodies(NOW), "ix_deliveries_received_at_with_body"),
}
COMPARED = {
    "changes": change_queries.CHANGES,
    "changes of a page": change_queries.CHANGES_OF_PAGE,
    "numbers of changes": change_queries.COUNTS,
    "texts of a page": change_queries.CONTENTS_OF_PAGE,
}
TOTALS = {
    "crawls": (queries.crawl_totals(LATELY, NOW), "ix_crawl_sessions_started_at"),
    "durations": (queries.histogram_totals(LATELY, NOW), "ix_operation_histograms_hour"),
    "buckets of durations": (queries.bucket_totals(LATELY, NOW), "ix_operation_histograms_hour"),
    "durations of a day": (queries.histogram_totals(A_DAY_AGO, NOW), "pk_hour_histograms"),
    "requests": (queries.request_totals(LATELY, NOW), "ix_request_metrics_timestamp"),
    "pages of a crawl": (queries.count_of(queries.pages("crawl-7")), "pages_crawl_id"),
    "deliveries of a crawl": (
        queries.count_of(queries.deliveries("crawl-7")),
        "uq_deliveries_crawl_id_identity",
    ),
    "operations of a crawl": (
        queries.count_of(queries.operations(crawl_id="crawl-7")),
        "ix_operation_metrics_crawl_id",
    ),
}


@pytest.fixture
async def filled(own_database: Database) -> AsyncIterator[AsyncConnection]:
    async with own_database.transaction() as connection:
        for statement in FILL.split(";"):
            if statement.strip():
                await connection.execute(text(statement))
    made = await make_partitions(own_database, NOW)
    assert {name.rpartition("_metrics_")[0] for name in made} == {"operation", "request"}
    async with own_database.transaction() as connection:
        await connection.execute(text("ANALYZE"))
        yield connection


COURSE = {
    "pages per bucket": (course_queries.PAGES_PER_BUCKET, "pages_crawl_id"),
    "stages per bucket": (course_queries.STAGES_PER_BUCKET, "ix_operation_metrics_crawl_id"),
    "moves per bucket": (course_queries.MOVES_PER_BUCKET, "uq_page_attempts_page_id_number"),
    "broken attempts": (course_queries.BROKEN_ATTEMPTS_PER_BUCKET, "uq_page_attempts_page_id_number"),
    "actions": (course_queries.ACTIONS, "crawl_facts_crawl_id"),
    "times of stages": (course_queries.STAGE_TIMES, "ix_operation_metrics_crawl_id"),
    "time spent": (course_queries.TIME_SPENT, "uq_page_attempts_page_id_number"),
    "cause of retries": (course_queries.CAUSE_OF_RETRIES, "uq_page_attempts_page_id_number"),
    "refused pages": (course_queries.REFUSED_PAGES, "pages_crawl_id"),
}
GIVEN = {
    "crawl_id": "crawl-7",
    "now": NOW,
    "began_at": LATELY,
    "crawled_at": NOW,
    "ended_at": NOW,
    "buckets": 60,
    "bucket_ms": 60_000.0,
    "late_after": timedelta(seconds=2),
    "report_lasts": timedelta(minutes=2),
    "giant_chunks": 128,
}


async def test_an_index_serves_each_query_on_the_course_of_a_crawl(filled: AsyncConnection):
    unserved = {}
    for name, (statement, index) in COURSE.items():
        used = await _explained(filled, text(f"EXPLAIN (FORMAT JSON) {statement.text}"), GIVEN)
        if not served(used, index):
            unserved[name] = used

    assert unserved == {}


async def test_an_index_serves_each_query_and_no_table_is_read_as_a_whole(filled: AsyncConnection):
    sliced = {name: (queries.slice_of(query, 50, 0), index) for name, (query, index) in SERVED_BY.items()}

    unserved = {
        name: used
        for name, (query, index) in (sliced | FOLLOWED | INSPECTED | TOTALS | PRUNED).items()
        if not served(used := await scans(filled, query), index)
    }

    assert unserved == {}
    given = {"crawl_id": "crawl-7", "against": "crawl-8", "is_ended": True, "source_key": uuid4()}
    given |= {"kinds": list(ChangeKind), "limit": 50, "offset": 0}
    for name, statement in COMPARED.items():
        plan = (await filled.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), given)).scalar_one()
        [explained] = json.loads(plan) if isinstance(plan, str) else plan
        used = [" ".join(scan) for scan in _scans(explained["Plan"])]
        assert served(used, "ix_pages_"), (name, used)


def served(scans: list[str], index: str) -> bool:
    return any(index in scan for scan in scans) and not any("Seq Scan" in scan for scan in scans)


async def scans(connection: AsyncConnection, query: Select[*tuple[Any, ...]]) -> list[str]:
    """Each scan of the query's plan: how, and of what."""
    sql = query.compile(connection.sync_connection, compile_kwargs={"literal_binds": True})
    return await _explained(connection, text(f"EXPLAIN (FORMAT JSON) {sql}".replace(":", r"\:")), {})


async def _explained(connection: AsyncConnection, statement: TextClause, given: dict[str, Any]) -> list[str]:
    names = statement.compile().params.keys() & given.keys()
    found = (await connection.execute(statement, {name: given[name] for name in names})).scalar_one()
    [explained] = json.loads(found) if isinstance(found, str) else found
    whole: dict[str, str] = dict((await connection.execute(text(PARTITIONED))).all())
    empty = set(await connection.scalars(text("SELECT relname FROM pg_class WHERE reltuples = 0")))
    return [
        " ".join(whole.get(name, name) for name in scan)
        for scan in _scans(explained["Plan"])
        if scan[-1] not in empty  # which is read as a whole
    ]


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "Scan" in node["Node Type"]:
        yield node["Node Type"], node.get("Index Name", ""), node.get("Relation Name", "")
    for child in node.get("Plans", []):
        yield from _scans(child)


async def test_the_pages_of_deliveries_are_found_by_their_index_in_an_installation_without_statistics(
    own_database: Database,
) -> None:
    keys = {"crawl_ids": ["crawl-1"] * 64, "source_keys": [uuid4() for _ in range(64)]}
    async with own_database.transaction() as connection:
        plan = await connection.execute(text(f"EXPLAIN {LOCK_SOURCES.text}"), keys)
        lines = list(plan.scalars())
    assert any("ix_pages_source_key" in line for line in lines), lines
    assert not any("Seq Scan" in line for line in lines), lines
