"""The newest operations of a crawl are found in each month without reading those of other crawls."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

FORMER, INDEX = "ix_operation_metrics_crawl_id", "ix_operation_metrics_crawl_id_timestamp"


def upgrade() -> None:
    op.create_index(INDEX, "operation_metrics", ["crawl_id", "timestamp"], schema="webhook")
    op.drop_index(FORMER, table_name="operation_metrics", schema="webhook")


def downgrade() -> None:
    op.create_index(FORMER, "operation_metrics", ["crawl_id"], schema="webhook")
    op.drop_index(INDEX, table_name="operation_metrics", schema="webhook")
