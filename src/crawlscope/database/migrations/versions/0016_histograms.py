"""The durations of each crawl's operations are kept as histograms by type and hour, which outlive them."""

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

COUNTED_AT_ONCE = 100
NOTING = (
    "CREATE TABLE webhook.uncounted_crawls (crawl_id varchar(255))",
    """
    CREATE FUNCTION webhook.note_operation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO webhook.uncounted_crawls
        SELECT NEW.crawl_id WHERE TG_OP <> 'DELETE' UNION SELECT OLD.crawl_id WHERE TG_OP <> 'INSERT';
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION webhook.note_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO webhook.uncounted_crawls SELECT crawl_id FROM webhook.pages WHERE id = NEW.page_id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER note_operation AFTER INSERT OR UPDATE OR DELETE ON webhook.operation_metrics
    FOR EACH ROW EXECUTE FUNCTION webhook.note_operation()
    """,
    """
    CREATE TRIGGER note_attempt AFTER INSERT OR UPDATE OF outcome ON webhook.page_attempts
    FOR EACH ROW WHEN (NEW.outcome IS NOT NULL) EXECUTE FUNCTION webhook.note_attempt()
    """,
    "INSERT INTO webhook.uncounted_crawls SELECT crawl_id FROM webhook.crawl_sessions UNION ALL SELECT NULL",
)
"""Whatever others write from here on, its crawl is noted; NULL stands for all without a crawl."""
LOCK = (
    "DROP TRIGGER note_operation ON webhook.operation_metrics",
    "DROP TRIGGER note_attempt ON webhook.page_attempts",
)
FORGET_NOTES = (
    "DROP FUNCTION webhook.note_operation()",
    "DROP FUNCTION webhook.note_attempt()",
    "DROP TABLE webhook.uncounted_crawls",
)
TAKE = sa.text("""
    DELETE FROM webhook.uncounted_crawls AS noted
    USING (SELECT DISTINCT coalesce(crawl_id, '') AS id FROM webhook.uncounted_crawls LIMIT :size) AS taken
    WHERE coalesce(noted.crawl_id, '') = taken.id RETURNING noted.crawl_id
""")
KEEP = sa.text("""
    SELECT crawl_id FROM webhook.crawl_sessions WHERE crawl_id = ANY (CAST(:crawls AS varchar[]))
    ORDER BY 1 FOR KEY SHARE
""")
"""From deletion. Those that are gone need no histograms."""
OF_CRAWLS = "(crawl_id = ANY (CAST(:crawls AS varchar[])) OR crawl_id IS NULL AND :without)"
DEAD = f"""
    UPDATE webhook.page_attempts SET
        (total_ms, unaccounted_ms) = (SELECT ms, ms FROM (
            SELECT round(greatest(0, extract(epoch FROM finished_at - started_at)) * 1024000::float8) / 1024
        ) AS spent (ms))
    WHERE outcome IN ('lost', 'crashed') AND total_ms IS NULL
        AND page_id IN (SELECT id FROM webhook.pages WHERE {OF_CRAWLS})
"""
"""All of their time is unaccounted."""
FORGET = f"DELETE FROM webhook.operation_histograms WHERE {OF_CRAWLS}"
FILL = f"""
    WITH attempt AS (
        SELECT crawl_id, attempt.started_at, unaccounted_ms, attempt.queued_at
        FROM webhook.page_attempts AS attempt JOIN webhook.pages AS page ON page.id = attempt.page_id
        WHERE attempt.total_ms IS NOT NULL AND {OF_CRAWLS}
    ), measured AS (
        SELECT crawl_id, timestamp AS at, operation_type, duration_ms * 1024::float8 AS ticks, success
        FROM webhook.operation_metrics WHERE {OF_CRAWLS}
        UNION ALL
        SELECT crawl_id, started_at, 'queue_wait',
            greatest(0, extract(epoch FROM started_at - queued_at)) * 1000 * 1024::float8, true
        FROM attempt WHERE queued_at IS NOT NULL
        UNION ALL
        SELECT crawl_id, started_at, 'unaccounted', unaccounted_ms * 1024::float8, true FROM attempt
    ), bucketed AS (
        SELECT
            crawl_id, date_trunc('hour', at, 'UTC') AS hour, operation_type, success,
            CASE
                WHEN NOT success THEN NULL
                WHEN round(ticks) > 0 THEN ceil(ln(round(ticks)) / 0.020000666706669435::float8)::int
                ELSE -1
            END AS bucket,
            count(*) AS number, sum(round(ticks)) AS ticks,
            min(round(ticks)) AS least_ticks, max(round(ticks)) AS most_ticks
        FROM measured GROUP BY 1, 2, 3, 4, 5
    )
    INSERT INTO webhook.operation_histograms (
        crawl_id, hour, operation_type, count, failed, total_ms, failed_ms, min_ms, max_ms, buckets, counts
    )
    SELECT
        crawl_id, hour, operation_type, sum(number),
        coalesce(sum(number) FILTER (WHERE NOT success), 0),
        coalesce(sum(ticks) FILTER (WHERE success), 0) / 1024,
        coalesce(sum(ticks) FILTER (WHERE NOT success), 0) / 1024,
        min(least_ticks) FILTER (WHERE success) / 1024, max(most_ticks) FILTER (WHERE success) / 1024,
        coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE success), '{{}}'),
        coalesce(array_agg(number ORDER BY bucket) FILTER (WHERE success), '{{}}')
    FROM bucketed GROUP BY crawl_id, hour, operation_type
"""
ALIVE = """
    UPDATE webhook.page_attempts SET total_ms = NULL, unaccounted_ms = NULL
    WHERE outcome IN ('lost', 'crashed')
"""


def upgrade() -> None:
    """Nobody waits for the count: crawls of which others write meanwhile are counted again."""
    op.create_table(
        "operation_histograms",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=True),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operation_type", sa.String(length=50), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("total_ms", sa.Double(), nullable=False),
        sa.Column("failed_ms", sa.Double(), nullable=False),
        sa.Column("min_ms", sa.Double(), nullable=True),
        sa.Column("max_ms", sa.Double(), nullable=True),
        sa.Column("buckets", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("counts", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_operation_histograms_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation_histograms")),
        sa.UniqueConstraint(
            *("crawl_id", "hour", "operation_type"),
            name=op.f("uq_operation_histograms_crawl_id_hour_operation_type"),
            postgresql_nulls_not_distinct=True,
        ),
        schema="webhook",
        if_not_exists=True,
    )
    op.create_index(
        op.f("ix_operation_histograms_hour"), "operation_histograms", ["hour"],
        schema="webhook", if_not_exists=True,
    )  # fmt: skip
    _commit()
    if not sa.inspect(op.get_bind()).has_table("uncounted_crawls", "webhook"):
        _execute(NOTING)
    _commit()
    while _count() == COUNTED_AT_ONCE:
        _commit()
    _commit()
    _execute(LOCK)
    while _count():
        pass
    _execute(FORGET_NOTES)


def _count() -> int:
    """The next noted crawls; returns their number."""
    connection = op.get_bind()
    taken = set(connection.scalars(TAKE, {"size": COUNTED_AT_ONCE}))
    kept = connection.scalars(KEEP, {"crawls": list(taken - {None})}).all()
    for statement in (DEAD, FORGET, FILL):
        connection.execute(sa.text(statement), {"crawls": kept, "without": None in taken})
    return len(taken)


def _execute(statements: Iterable[str]) -> None:
    for statement in statements:
        op.execute(statement)


def _commit() -> None:
    with op.get_context().autocommit_block():
        pass


def downgrade() -> None:
    op.drop_table("operation_histograms", schema="webhook")
    op.execute(ALIVE)
