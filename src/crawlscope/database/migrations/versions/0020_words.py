"""The words of an index, so that a query with a typing error can be corrected."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "index_words",
        sa.Column("generation_id", sa.BigInteger(), nullable=False),
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.Column("reversed", sa.Text(collation="C"), nullable=False),
        sa.Column("documents", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["webhook.index_generations.id"],
            name="fk_index_words_generation_id_index_generations",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("generation_id", "word", name="pk_index_words"),
        schema="webhook",
    )
    op.create_index("ix_index_words_reversed", "index_words", ["generation_id", "reversed"], schema="webhook")


def downgrade() -> None:
    op.drop_table("index_words", schema="webhook")
