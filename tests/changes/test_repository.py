"""The outcomes of pages that were fetched again because they had changed."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from crawlscope.changes.acceptance import Rescraping, accept_change
from crawlscope.changes.repository import settle_changes
from crawlscope.core.vocabulary import Engine
from crawlscope.database.engine import Database
from crawlscope.models import ChangeEvent
from crawlscope.pages.retry import retry_pages
from tests.support.producing import A, deliver_pages, fail_pages, index_pages


async def settled(database: Database) -> Any:
    await database.run(settle_changes)
    async with database.transaction() as connection:
        shown = select(ChangeEvent.rescrape_status, ChangeEvent.rescrape_error, ChangeEvent.indexed_at)
        return (await connection.execute(shown)).one()


async def test_a_page_that_failed_and_then_succeeded_is_indexed(database: Database) -> None:
    body = json.dumps({"watch_url": A}).encode()
    taken = await accept_change(database, body, datetime.now(UTC), Rescraping(Engine.BUILTIN, True))
    assert taken.crawl_id is not None
    await deliver_pages(database, taken.crawl_id, A)
    await fail_pages(database, taken.crawl_id, "internal_error", "it went wrong")
    assert await settled(database) == ("failed", "it went wrong", None)
    crawl_id = taken.crawl_id
    retry = await database.run(lambda connection: retry_pages(connection, crawl_id))
    assert retry.queued == 1
    assert (await settled(database)).rescrape_status == "failed"
    await index_pages(database, crawl_id)
    status, error, indexed_at = await settled(database)
    assert (status, error) == ("indexed", None)
    assert indexed_at is not None
