"""Migrations that count what is there keep nobody waiting, and miss nothing that is written meanwhile."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, event, text

from crawlscope.core.vocabulary import PageState
from crawlscope.database import revision, schema
from crawlscope.database.engine import Database
from crawlscope.sessions.recount import recount
from tests.database.test_revision import require_agreement
from tests.database.test_row_counts import counted, listed, measure
from tests.support.producing import A, B, deliver_pages, index_pages

WRITE = """
    SET lock_timeout TO 1000;
    INSERT INTO webhook.crawl_sessions (crawl_id, started_at)
        SELECT gen_random_uuid(), now() FROM generate_series(1, 120);
    INSERT INTO webhook.operation_metrics (operation_type, operation_name, duration_ms, success, crawl_id)
        SELECT 'embedding', 'embed_batch', 4, true, crawl_id FROM webhook.crawl_sessions
        WHERE crawl_id <> 'crawl-2' UNION ALL SELECT 'embedding', 'embed_batch', 4, true, NULL;
    UPDATE webhook.page_attempts SET outcome = outcome, unaccounted_ms = unaccounted_ms + 1
        WHERE page_id IN (SELECT id FROM webhook.pages WHERE crawl_id = 'crawl-2');
    DELETE FROM webhook.request_metrics WHERE ctid = (SELECT min(ctid) FROM webhook.request_metrics);
"""
"""As a version writes that does not know what the migration adds."""
MISCOUNTED = text("""
    SELECT crawl_id FROM (
        SELECT crawl_id, operation_type, -count(*) AS number FROM webhook.operation_metrics GROUP BY 1, 2
        UNION ALL
        SELECT crawl_id, operation_type, count FROM webhook.operation_histograms
        WHERE operation_type NOT IN ('queue_wait', 'unaccounted')
    ) AS counted GROUP BY crawl_id, operation_type HAVING sum(number) <> 0
""")
"""Crawls, or those without one, whose histograms have other numbers of operations than there are."""
FUNCTIONS = text("SELECT proname FROM pg_proc WHERE pronamespace = 'webhook'::regnamespace")


@contextmanager
def called_around(statement: str, call: Callable[[], None]) -> Iterator[None]:
    """Before and after each statement that contains this one."""

    def note(*given: Any) -> None:
        if statement in given[2]:
            call()

    moments = ("before_cursor_execute", "after_cursor_execute")
    for moment in moments:
        event.listen(Engine, moment, note)
    try:
        yield
    finally:
        for moment in moments:
            event.remove(Engine, moment, note)


async def write(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(WRITE)
    await connection.close()


@contextmanager
def others_write_around(statement: str, times: int, url: str) -> Iterator[None]:
    """The first so many times."""
    left = 2 * times

    def write_in_time() -> None:
        nonlocal left
        if left:
            left -= 1
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, write(url)).result()

    with called_around(statement, write_in_time):
        yield
    assert not left


def interrupt() -> None:
    raise KeyError("interrupted")


@pytest.fixture
async def filled(own_database: Database) -> Database:
    for crawl_id, url in (("crawl-1", A), ("crawl-2", B)):
        await deliver_pages(own_database, crawl_id, url)
        await index_pages(own_database, crawl_id, PageState.INDEXED)
        await measure(own_database, crawl_id)
    return own_database


async def test_rows_are_counted_while_others_write(filled: Database, own_database_url: str) -> None:
    await schema.downgrade(filled, "0021")
    with others_write_around("SELECT count(*) FROM webhook", 3, own_database_url):
        await schema.upgrade(filled)
    assert await listed(filled) == await counted(filled)
    assert (await counted(filled))[0] > 700


async def test_histograms_are_counted_while_others_write(filled: Database, own_database_url: str) -> None:
    await schema.downgrade(filled, "0015")
    await write(own_database_url)  # more crawls than are counted at once
    with others_write_around("INSERT INTO webhook.operation_histograms", 2, own_database_url):
        await schema.upgrade(filled)
    async with filled.transaction() as connection:
        assert not (await connection.scalars(MISCOUNTED)).all()
        for crawl_id in ("crawl-1", "crawl-2"):
            assert "operation_histograms" not in await recount(connection, crawl_id)


@pytest.mark.parametrize("before", ["0015", "0021"])
async def test_a_count_that_was_interrupted_is_made_anew(filled: Database, before: str) -> None:
    await schema.downgrade(filled, before)
    with called_around("DROP TRIGGER", interrupt), pytest.raises(KeyError):
        await schema.upgrade(filled)
    assert await revision.current_revision(filled) == before
    await schema.upgrade(filled)
    assert await listed(filled) == await counted(filled)
    async with filled.transaction() as connection:
        assert not (await connection.scalars(MISCOUNTED)).all()
        assert await recount(connection, "crawl-2") == {}
        assert set(await connection.scalars(FUNCTIONS)) == {"note_changed_hour"}
    await require_agreement(filled)
