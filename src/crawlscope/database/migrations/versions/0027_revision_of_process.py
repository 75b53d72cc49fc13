"""Each process says which revision it needs, so that an upgrade does not take from it what it reads."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None
serves_from = "0025"


def upgrade() -> None:
    op.add_column("processes", sa.Column("revision", sa.String(length=32), nullable=True), schema="webhook")


def downgrade() -> None:
    op.drop_column("processes", "revision", schema="webhook")
