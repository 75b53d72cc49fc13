"""The earlier crawls of a site are looked up by its URL, which can be too long for an index itself."""

from alembic import op

from crawlscope.database.migrations.indexes import create_index

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX = "ix_crawl_sessions_site"


def upgrade() -> None:
    create_index(INDEX, "crawl_sessions", "(md5(crawl_url), started_at)")


def downgrade() -> None:
    op.drop_index(INDEX, table_name="crawl_sessions", schema="webhook")
