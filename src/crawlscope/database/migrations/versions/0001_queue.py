"""The schemas and the queue's tables."""

from alembic import op

from crawlscope.database.queue import QUEUE_SCHEMA, schema_installation, schema_removal
from crawlscope.models import SCHEMA

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {QUEUE_SCHEMA}")
    for statement in schema_installation():
        op.execute(statement)


def downgrade() -> None:
    for statement in schema_removal():
        op.execute(statement)
    op.execute(f"DROP SCHEMA {QUEUE_SCHEMA}")
    op.execute(f"DROP SCHEMA {SCHEMA}")
