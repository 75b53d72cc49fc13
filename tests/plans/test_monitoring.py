"""The reads of monitoring do not grow with the records. SQL makes the rows: reads are counted, never rows."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.insights.monitoring import installation_metrics
from crawlscope.sessions.repository import claim_ended
from crawlscope.timing.telemetry import conventions

ROWS = 50_000
RUNNING = 20
FILL = f"""
SET LOCAL session_replication_role = replica;
INSERT INTO webhook.crawl_sessions (crawl_id, started_at, completed_at, status, counted)
  SELECT 'crawl-' || n, now() - n * interval '1 minute', CASE WHEN n > {RUNNING} THEN now() END,
         CASE WHEN n > {RUNNING} THEN 'completed' ELSE 'in_progress' END, n > {RUNNING}
  FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.notifications (crawl_id, event_type, settled_at, payload, delivered_at)
  SELECT 'crawl-' || n, 'crawl.searchable', now(), '{{}}', now() FROM generate_series(1, {ROWS}) n;
INSERT INTO webhook.operation_metrics (timestamp, operation_type, operation_name, duration_ms, success)
  SELECT now() - n * interval '1 second', 'embedding', 'embed_batch', n % 97, true
  FROM generate_series(1, {ROWS}) n;
ANALYZE;
"""
ROWS_READ = text("""
    SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)
    FROM pg_stat_xact_user_tables WHERE schemaname IN ('webhook', 'queue')
""")


async def rows_read(connection: AsyncConnection) -> int:
    """By this transaction until now."""
    return int(await connection.scalar(ROWS_READ) or 0)


async def test_a_scrape_and_the_count_of_ended_crawls_read_few_rows(own_database: Database):
    async with own_database.transaction() as connection:
        for statement in FILL.split(";"):
            if statement.strip():
                await connection.execute(text(statement))
    async with own_database.transaction() as connection:
        state = await installation_metrics(connection)
        assert state.gauges[conventions.CRAWLS_IN_PROGRESS, ()] == RUNNING
        assert await rows_read(connection) <= 10 * RUNNING
    async with own_database.transaction() as connection:
        assert await claim_ended(connection) == []
        assert await rows_read(connection) <= 10 * RUNNING
    async with own_database.transaction() as connection:  # the counter of rows works
        await connection.execute(text("SELECT sum(total_pages) FROM webhook.crawl_sessions"))
        assert await rows_read(connection) >= ROWS
