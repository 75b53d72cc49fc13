"""The documents of programs keep their content, so that the index can be rebuilt with them."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None
serves_from = "0025"


def upgrade() -> None:
    op.create_table(
        "document_contents",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("markdown", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_document_contents")),
        schema="webhook",
    )


def downgrade() -> None:
    op.drop_table("document_contents", schema="webhook")
