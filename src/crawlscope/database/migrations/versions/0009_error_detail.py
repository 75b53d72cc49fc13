"""A failed page says why in a short sentence, and keeps the crawler's own words behind it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FETCHED = "UPDATE webhook.crawl_facts SET fact = fact || '{\"fetched\": true}' WHERE fact ? 'page'"
"""Pages that were fetched tell nothing of when they were scraped."""
UNMARKED = "UPDATE webhook.crawl_facts SET fact = fact - 'fetched' WHERE fact ? 'page'"


def upgrade() -> None:
    op.add_column("pages", sa.Column("error_detail", sa.Text(), nullable=True), schema="webhook")
    op.execute(FETCHED)


def downgrade() -> None:
    op.execute(UNMARKED)
    op.execute("UPDATE webhook.pages SET error = error_detail WHERE error_detail IS NOT NULL")
    op.drop_column("pages", "error_detail", schema="webhook")
