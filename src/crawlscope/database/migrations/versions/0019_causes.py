"""Past outages and the times of the built-in crawler are kept, because they explain slow crawls."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

COUNTS = ("requests", "refusals")
SUMS = ("response_ms", "delay_ms")


def upgrade() -> None:
    op.create_table(
        "past_outages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("part", sa.String(length=50), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_past_outages")),
        schema="webhook",
    )
    op.create_index(op.f("ix_past_outages_until"), "past_outages", ["until"], schema="webhook")
    for name in COUNTS:
        _add(sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    for name in SUMS:
        _add(sa.Column(name, sa.Double(), server_default=sa.text("0"), nullable=False))


def _add(column: sa.Column[Any]) -> None:
    op.add_column("crawl_requests", column, schema="webhook")


def downgrade() -> None:
    for name in (*COUNTS, *SUMS):
        op.drop_column("crawl_requests", name, schema="webhook")
    op.drop_table("past_outages", schema="webhook")
