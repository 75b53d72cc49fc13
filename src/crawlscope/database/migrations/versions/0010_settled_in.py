"""A page records the transaction in which it settled, so that live readers miss none."""

import sqlalchemy as sa
from alembic import op

from crawlscope.database.migrations.indexes import create_index

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEX = "ix_pages_crawl_id_settled_in"
BEFORE_ALL = "0"
"""Earlier than any transaction: the pages that are there have settled before whoever reads from now on."""


def upgrade() -> None:
    op.add_column(
        "pages",
        sa.Column("settled_in", sa.BigInteger(), nullable=True, server_default=BEFORE_ALL),
        schema="webhook",
        if_not_exists=True,
    )
    op.alter_column("pages", "settled_in", server_default=None, schema="webhook")
    with op.get_context().autocommit_block():
        op.execute("UPDATE webhook.pages SET settled_in = NULL WHERE settled_at IS NULL")
    create_index(INDEX, "pages", "(crawl_id, settled_in, id) WHERE settled_in IS NOT NULL")


def downgrade() -> None:
    op.drop_index(INDEX, table_name="pages", schema="webhook")
    op.drop_column("pages", "settled_in", schema="webhook")
