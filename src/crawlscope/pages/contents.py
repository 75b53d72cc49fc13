"""The text of a page: its content contains it, or says where the body of its delivery contains it."""

from collections.abc import Sequence

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.pages.delivered import markdown_of

COPIED_AT_ONCE = 50
CONTENTS = models.table_of(models.PageContent)
_DELIVERIES = models.table_of(models.Delivery)
WITH_BODIES = CONTENTS.outerjoin(_DELIVERIES, _DELIVERIES.c.id == CONTENTS.c.delivery_id)
TEXT = (CONTENTS.c.markdown, _DELIVERIES.c.body, CONTENTS.c.begins, CONTENTS.c.ends)
"""The columns of `WITH_BODIES` that `markdown_of` reads."""
_COPY = text("""
    UPDATE webhook.page_contents AS content
    SET markdown = copied.markdown, delivery_id = NULL, begins = NULL, ends = NULL, characters = NULL,
        hash = NULL
    FROM unnest(CAST(:page_ids AS bigint[]), CAST(:delivery_ids AS bigint[]), CAST(:markdown AS text[]))
        AS copied (page_id, delivery_id, markdown)
    WHERE content.page_id = copied.page_id AND content.delivery_id = copied.delivery_id
""")


async def copy_texts(connection: AsyncConnection, delivery_ids: Sequence[int]) -> None:
    """Copies the texts of pages out of the bodies of these deliveries, which can be dropped then."""
    for start in range(0, len(delivery_ids), COPIED_AT_ONCE):
        of_these = CONTENTS.c.delivery_id.in_(delivery_ids[start : start + COPIED_AT_ONCE])
        found = select(CONTENTS.c.page_id, CONTENTS.c.delivery_id, *TEXT).select_from(WITH_BODIES)
        rows = (await connection.execute(found.where(of_these))).mappings().all()
        if rows:
            values = {
                "page_ids": [row["page_id"] for row in rows],
                "delivery_ids": [row["delivery_id"] for row in rows],
                "markdown": [markdown_of(row) for row in rows],
            }
            await connection.execute(_COPY, values)
