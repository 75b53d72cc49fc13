"""The newest operations of a crawl are found in each month without reading those of other crawls."""

from alembic import op

from crawlscope.database.migrations.indexes import create_partitioned_index

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

FORMER, INDEX = "ix_operation_metrics_crawl_id", "ix_operation_metrics_crawl_id_timestamp"


def upgrade() -> None:
    create_partitioned_index(INDEX, "operation_metrics", "(crawl_id, timestamp)")
    op.drop_index(FORMER, table_name="operation_metrics", schema="webhook")


def downgrade() -> None:
    create_partitioned_index(FORMER, "operation_metrics", "(crawl_id)")
    op.drop_index(INDEX, table_name="operation_metrics", schema="webhook")
