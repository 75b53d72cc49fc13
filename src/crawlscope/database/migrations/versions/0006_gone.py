"""What all crawls found at a URL is looked up when a page is gone."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_pages_source_key", "pages", ["source_key"], schema="webhook")


def downgrade() -> None:
    op.drop_index("ix_pages_source_key", table_name="pages", schema="webhook")
