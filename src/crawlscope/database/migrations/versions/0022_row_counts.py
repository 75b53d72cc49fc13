"""The lists of crawls, operations and requests know how many there are without reading all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TABLES = ("crawl_sessions", "operation_metrics", "request_metrics")


def upgrade() -> None:
    op.create_table(
        "row_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_row_counts")),
        schema="webhook",
    )
    for table in TABLES:
        op.execute(f"LOCK TABLE webhook.{table} IN SHARE MODE")
        op.execute(
            "INSERT INTO webhook.row_counts (table_name, rows)"
            f" SELECT '{table}', count(*) FROM webhook.{table}"
        )


def downgrade() -> None:
    op.drop_table("row_counts", schema="webhook")
