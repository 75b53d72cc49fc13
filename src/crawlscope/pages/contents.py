"""The text of a page: its content contains it, or says where the body of its delivery contains it."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from pydantic_core import from_json
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.compression import decompress
from crawlscope.pages.delivered import DeliveredPage

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


def text_columns(page: DeliveredPage) -> Sequence[Any]:
    """The values of `markdown`, `html`, `delivery_id`, `begins`, `ends`, `characters` and `hash`."""
    if (place := page.place) is None:
        return page.markdown, page.html, *[None] * 5
    in_body = place.delivery_id, place.begins, place.ends
    return "", page.html, *in_body, len(page.markdown), sha256(page.markdown.encode()).digest()


def markdown_of(row: Mapping[Any, Any]) -> str | None:
    """None for a page whose content is not kept."""
    if row["begins"] is None:
        markdown: str | None = row["markdown"]
        return markdown
    in_body: str = from_json(decompress(row["body"])[row["begins"] : row["ends"]])
    return in_body


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
