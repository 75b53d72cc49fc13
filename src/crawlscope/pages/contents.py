"""The text of a page: its content contains it, or says where the body of its delivery contains it."""

from collections.abc import Sequence

import structlog
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.in_thread import in_thread
from crawlscope.core.values import arrays
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

log = structlog.get_logger(__name__)


async def copy_texts(connection: AsyncConnection, delivery_ids: Sequence[int]) -> None:
    """Copies the texts of pages out of the bodies of these deliveries, which can be dropped then. Deletes the
    content of a page whose body is damaged."""
    for start in range(0, len(delivery_ids), COPIED_AT_ONCE):
        of_these = CONTENTS.c.delivery_id.in_(delivery_ids[start : start + COPIED_AT_ONCE])
        found = select(CONTENTS.c.page_id, CONTENTS.c.delivery_id, *TEXT).select_from(WITH_BODIES)
        rows = (await connection.execute(found.where(of_these))).mappings().all()
        texts = await in_thread(list, map(markdown_of, rows))
        read = [(row["page_id"], row["delivery_id"], text) for row, text in zip(rows, texts, strict=True)]
        if kept := [each for each in read if each[-1] is not None]:
            await connection.execute(_COPY, arrays(("page_ids", "delivery_ids", "markdown"), kept))
        if lost := [page_id for page_id, _, text in read if text is None]:
            log.warning("texts_lost", page_ids=lost)
            await connection.execute(delete(CONTENTS).where(CONTENTS.c.page_id.in_(lost), of_these))
