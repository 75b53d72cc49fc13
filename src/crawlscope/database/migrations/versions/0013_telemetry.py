"""Totals for monitoring, the processes that report them, and which crawls they contain."""

import sqlalchemy as sa
from alembic import op

from crawlscope.database.migrations.indexes import create_index

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metric_totals",
        sa.Column("metric", sa.String(100), nullable=False),
        sa.Column("labels", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("buckets", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint("metric", "labels", name="pk_metric_totals"),
        schema="webhook",
        if_not_exists=True,
    )
    op.create_table(
        "processes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(50), nullable=False),
        sa.Column("version", sa.String(50), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_processes"),
        schema="webhook",
        if_not_exists=True,
    )
    # Crawls that ended before are not counted. A default fills the column without a rewrite of the table.
    op.add_column(
        "crawl_sessions",
        sa.Column("counted", sa.Boolean(), nullable=False, server_default=sa.true()),
        schema="webhook",
        if_not_exists=True,
    )
    op.alter_column("crawl_sessions", "counted", server_default=sa.false(), schema="webhook")
    op.execute("UPDATE webhook.crawl_sessions SET counted = false WHERE completed_at IS NULL")
    create_index("ix_crawl_sessions_uncounted", "crawl_sessions", "(started_at) WHERE NOT counted")


def downgrade() -> None:
    op.drop_index("ix_crawl_sessions_uncounted", "crawl_sessions", schema="webhook")
    op.drop_column("crawl_sessions", "counted", schema="webhook")
    op.drop_table("processes", schema="webhook")
    op.drop_table("metric_totals", schema="webhook")
