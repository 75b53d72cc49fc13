"""A page keeps the hash of its content, so that two crawls are compared without their texts."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pages", sa.Column("content_hash", sa.Text(), nullable=True), schema="webhook")


def downgrade() -> None:
    op.drop_column("pages", "content_hash", schema="webhook")
