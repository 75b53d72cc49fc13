"""The content of a page can be in the body of its delivery, so that a text is stored once."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from pydantic_core import from_json

from crawlscope.core.compression import DamagedBody, decompress
from crawlscope.database.migrations.indexes import create_index

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
serves_from = "0022"

COLUMNS: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "delivery_id": sa.BigInteger,
    "begins": sa.Integer,
    "ends": sa.Integer,
    "characters": sa.Integer,
    "hash": sa.LargeBinary,
}
COPIED_AT_ONCE = 50
FIND = sa.text("""
    SELECT page_id, begins, ends, deliveries.body
    FROM webhook.page_contents JOIN webhook.deliveries ON deliveries.id = delivery_id
    WHERE markdown = '' AND page_id > :after ORDER BY page_id LIMIT :size
""")
COPY = sa.text("""
    UPDATE webhook.page_contents SET markdown = :markdown, delivery_id = NULL WHERE page_id = :page_id
""")
FORGET = sa.text("DELETE FROM webhook.page_contents WHERE page_id = :page_id")


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        column = sa.Column(name, kind, nullable=True)
        op.add_column("page_contents", column, schema="webhook", if_not_exists=True)
    create_index(
        "ix_page_contents_delivery_id", "page_contents", "(delivery_id) WHERE delivery_id IS NOT NULL"
    )


def downgrade() -> None:
    """Versions before find texts only in the contents."""
    connection, after = op.get_bind(), 0
    while found := connection.execute(FIND, {"after": after, "size": COPIED_AT_ONCE}).all():
        copied, lost = [], []
        for row in found:
            try:
                markdown = from_json(decompress(row.body or b"")[row.begins : row.ends])
                copied.append({"page_id": row.page_id, "markdown": markdown})
            except DamagedBody:
                lost.append({"page_id": row.page_id})
        for statement, values in ((COPY, copied), (FORGET, lost)):
            if values:
                connection.execute(statement, values)
        after = found[-1].page_id
    for name in COLUMNS:
        op.drop_column("page_contents", name, schema="webhook")
