"""A text is stored once, with its delivery, and can be read wherever it is."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update

from crawlscope.core.compression import decompress
from crawlscope.core.values import hash_key
from crawlscope.database import schema
from crawlscope.database.engine import Database
from crawlscope.database.retention import Keep
from crawlscope.models import Delivery, PageContent
from crawlscope.pages.delivered import markdown_of
from crawlscope.pages.repository import newest_contents
from crawlscope.webhooks.acceptance import accept_delivery
from crawlscope.webhooks.replay import WhichDeliveries, replay
from crawlscope.webhooks.retention import prune_bodies
from tests.support.producing import A, B, attempt, deliver, deliver_pages, document, index_pages, queued

NOW = datetime.now(UTC)
WORDS = '# "Quoted"\n\nA tab\tand a \\backslash, a bell \x07, naïve 犬 🐕 </script> \u2028.'


def of(url: str, markdown: str) -> dict[str, Any]:
    return {**document(url), "markdown": markdown}


async def text_of(database: Database, url: str) -> str | None:
    async with database.transaction() as connection:
        [content] = await newest_contents(connection, hash_key(url), 3)
        return markdown_of(content)


async def rows(database: Database, *columns: Any) -> list[Any]:
    async with database.transaction() as connection:
        return list(await connection.execute(select(*columns).order_by(columns[0])))


@pytest.mark.parametrize("is_ascii", [True, False])
async def test_a_text_is_stored_once(database: Database, is_ascii: bool) -> None:
    event = {"type": "crawl.page", "id": "crawl-1", "data": [of(A, WORDS)], "webhookId": str(uuid4())}
    body = json.dumps(event, ensure_ascii=is_ascii).encode()
    await accept_delivery(database, body, NOW)
    [(_, markdown, characters)] = await rows(
        database, PageContent.page_id, PageContent.markdown, PageContent.characters
    )
    assert (markdown, characters) == ("", len(WORDS))
    assert await text_of(database, A) == WORDS
    [(_, stored)] = await rows(database, Delivery.id, Delivery.body)
    assert decompress(stored) == body


async def test_a_text_outlives_the_body_of_its_delivery(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.page", [of(A, WORDS)])
    await prune_bodies(database, Keep(days=1), NOW + timedelta(days=2))
    assert await rows(database, Delivery.body) == [(None,)]
    assert await text_of(database, A) == WORDS
    assert await index_pages(database, "crawl-1") == 1


async def test_deliveries_of_several_pages_leave_the_texts_with_the_pages(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.completed", [of(A, "First."), of(B, "Second.")])
    assert [row.markdown for row in await rows(database, PageContent.page_id, PageContent.markdown)] == [
        *("First.", "Second.")
    ]


async def test_a_page_that_changed_leaves_the_delivery_before_as_it_was(database: Database) -> None:
    for seconds, words in enumerate(("First.", "Second.")):
        at = NOW + timedelta(seconds=seconds)
        await deliver(database, "crawl-1", "crawl.page", [of(A, words)], at)
        assert await text_of(database, A) == words
        again = await replay(database, WhichDeliveries(), NOW)
        assert (again.changed, again.unreadable) == (0, 0)
    bodies = [json.loads(decompress(row.body)) for row in await rows(database, Delivery.id, Delivery.body)]
    assert [body["data"][0]["markdown"] for body in bodies] == ["First.", "Second."]


async def test_a_text_that_the_version_of_0025_replaced_is_the_new_one(database: Database) -> None:
    """It leaves the place of the text before, because it knows of none when it writes."""
    await deliver(database, "crawl-1", "crawl.page", [of(A, "First.")])
    async with database.transaction() as connection:
        await connection.execute(update(PageContent).values(markdown="Second.", html=""))
    assert await text_of(database, A) == "Second."
    await prune_bodies(database, Keep(days=1), NOW + timedelta(days=2))
    assert await text_of(database, A) == "Second."


@pytest.mark.parametrize("stored", [b"\x28\xb5\x2f\xfd words", None])
async def test_a_damaged_body_takes_nothing_with_it_but_its_own_text(
    database: Database, stored: bytes | None
) -> None:
    await deliver_pages(database, "crawl-1", A, B)
    async with database.transaction() as connection:
        first = select(PageContent.delivery_id).order_by(PageContent.page_id).limit(1).scalar_subquery()
        await connection.execute(update(Delivery).where(Delivery.id == first).values(body=stored))
    claims = [(await attempt(database, job))[0] for job in await queued(database, "crawl-1")]
    assert [(claim.source_url, claim.is_lost) for claim in claims] == [(A, True), (B, False)]
    assert await text_of(database, A) is None
    await prune_bodies(database, Keep(days=1), NOW + timedelta(days=2))
    assert await rows(database, Delivery.body) == [(None,), (None,)]
    assert await text_of(database, B) == document(B)["markdown"]


async def test_a_downgrade_takes_the_texts_back_to_the_pages(own_database: Database) -> None:
    await deliver(own_database, "crawl-1", "crawl.page", [of(B, "Lost.")])
    async with own_database.transaction() as connection:
        await connection.execute(update(Delivery).values(body=b"damaged"))
    await deliver(own_database, "crawl-1", "crawl.page", [of(A, WORDS)])
    await schema.downgrade(own_database, "0024")
    async with own_database.transaction() as connection:
        assert await connection.scalar(text("SELECT markdown FROM webhook.page_contents")) == WORDS
