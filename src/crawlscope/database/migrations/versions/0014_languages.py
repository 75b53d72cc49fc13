"""A document records the language of its text, by which its words are stemmed."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    language = sa.Column("language", sa.String(8), server_default=sa.text("''"), nullable=False)
    op.add_column("documents", language, schema="webhook")


def downgrade() -> None:
    op.drop_column("documents", "language", schema="webhook")
