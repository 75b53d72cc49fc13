"""The durations of each crawl's operations are kept as histograms by type and hour, which outlive them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

LOCK = "LOCK TABLE webhook.operation_metrics IN SHARE MODE"
"""Nobody adds operations before those that are there are counted."""
FILL = """
    WITH attempt AS (
        SELECT page.crawl_id, attempt.started_at, unaccounted_ms, attempt.queued_at
        FROM webhook.page_attempts AS attempt JOIN webhook.pages AS page ON page.id = attempt.page_id
        WHERE attempt.total_ms IS NOT NULL
    ), measured AS (
        SELECT crawl_id, timestamp AS at, operation_type, duration_ms * 1024::float8 AS ticks, success
        FROM webhook.operation_metrics
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
        coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE success), '{}'),
        coalesce(array_agg(number ORDER BY bucket) FILTER (WHERE success), '{}')
    FROM bucketed GROUP BY crawl_id, hour, operation_type
"""
DEAD = """
    UPDATE webhook.page_attempts SET
        (total_ms, unaccounted_ms) = (SELECT ms, ms FROM (
            SELECT round(greatest(0, extract(epoch FROM finished_at - started_at)) * 1024000::float8) / 1024
        ) AS spent (ms))
    WHERE outcome IN ('lost', 'crashed') AND total_ms IS NULL
"""
"""All of their time is unaccounted."""
ALIVE = """
    UPDATE webhook.page_attempts SET total_ms = NULL, unaccounted_ms = NULL
    WHERE outcome IN ('lost', 'crashed')
"""


def upgrade() -> None:
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
    )
    op.create_index(op.f("ix_operation_histograms_hour"), "operation_histograms", ["hour"], schema="webhook")
    op.execute(LOCK)
    op.execute(DEAD)
    op.execute(FILL)


def downgrade() -> None:
    op.drop_table("operation_histograms", schema="webhook")
    op.execute(ALIVE)
