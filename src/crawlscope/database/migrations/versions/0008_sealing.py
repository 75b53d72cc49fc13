"""A crawl is compared with Firecrawl as soon as it has ended; until then it is asked after more often."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEX = "ix_reconciliations_next_check_at"
TIMES = ("leased_until", "running_at", "moved_at")
COUNTS = ("total", "completed")
UNSETTLED_SINCE = """
UPDATE webhook.reconciliations c SET settled = false
FROM webhook.crawl_sessions s WHERE s.crawl_id = c.crawl_id AND c.covers_until < s.last_fact_at
"""
COVERED = """
UPDATE webhook.reconciliations c SET covers_until = s.last_fact_at
FROM webhook.crawl_sessions s WHERE s.crawl_id = c.crawl_id AND c.settled
"""


def upgrade() -> None:
    op.execute(UNSETTLED_SINCE)
    op.drop_column("reconciliations", "covers_until", schema="webhook")
    op.drop_index(INDEX, table_name="reconciliations", schema="webhook")
    op.alter_column("reconciliations", "next_check_at", nullable=True, server_default=None, schema="webhook")
    op.execute("UPDATE webhook.reconciliations SET next_check_at = NULL WHERE settled")
    op.create_index(
        INDEX,
        "reconciliations",
        ["next_check_at"],
        schema="webhook",
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )
    for name in TIMES:
        _add(sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    for name in COUNTS:
        _add(sa.Column(name, sa.BigInteger(), nullable=True))
    _add(sa.Column("in_full", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    _add(sa.Column("missing", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    _add(
        sa.Column(
            "missing_urls",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        )
    )


def downgrade() -> None:
    for name in ("missing_urls", "missing", "in_full", *COUNTS, *TIMES):
        op.drop_column("reconciliations", name, schema="webhook")
    op.drop_index(INDEX, table_name="reconciliations", schema="webhook")
    op.execute("UPDATE webhook.reconciliations SET next_check_at = now() WHERE next_check_at IS NULL")
    op.alter_column(
        "reconciliations", "next_check_at", nullable=False, server_default=sa.text("now()"), schema="webhook"
    )
    op.create_index(
        INDEX,
        "reconciliations",
        ["next_check_at"],
        schema="webhook",
        postgresql_where=sa.text("NOT settled"),
    )
    op.add_column(
        "reconciliations",
        sa.Column("covers_until", sa.DateTime(timezone=True), nullable=True),
        schema="webhook",
    )
    op.execute(COVERED)


def _add(column: "sa.Column[object]") -> None:
    op.add_column("reconciliations", column, schema="webhook")
