"""What deleted operations sum up to stays with their crawls."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pruned_operations",
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("operation_type", sa.String(length=50), nullable=False),
        sa.Column("count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["crawl_id"],
            ["webhook.crawl_sessions.crawl_id"],
            name=op.f("fk_pruned_operations_crawl_id_crawl_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("crawl_id", "operation_type", name=op.f("pk_pruned_operations")),
        schema="webhook",
    )


def downgrade() -> None:
    op.drop_table("pruned_operations", schema="webhook")
