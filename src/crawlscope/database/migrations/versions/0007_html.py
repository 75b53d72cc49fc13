"""A page can be delivered as HTML alone."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "page_contents",
        sa.Column("html", sa.Text(), server_default=sa.text("''"), nullable=False),
        schema="webhook",
    )


def downgrade() -> None:
    op.drop_column("page_contents", "html", schema="webhook")
