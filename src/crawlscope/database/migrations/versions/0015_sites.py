"""The earlier crawls of a site are looked up by its URL, which can be too long for an index itself."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX = "ix_crawl_sessions_site"


def upgrade() -> None:
    op.create_index(INDEX, "crawl_sessions", [sa.text("md5(crawl_url)"), "started_at"], schema="webhook")


def downgrade() -> None:
    op.drop_index(INDEX, table_name="crawl_sessions", schema="webhook")
