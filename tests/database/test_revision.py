"""Migrations: what they make, and that they leave the service in work while they run."""

import asyncio
import os
import socket
from datetime import timedelta

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import SettingsError, UsageError
from crawlscope.database import revision, schema
from crawlscope.database.engine import Database
from crawlscope.timing.telemetry.reports import reported
from tests.support.producing import deliver_pages, index_pages


async def require_agreement(database: Database) -> None:
    """Raises `CommandError` when models and migrations differ."""

    def check(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.check(config)

    async with database.transaction() as connection:
        await connection.run_sync(check)


LOCK_TABLES = text("LOCK TABLE webhook.crawl_sessions, webhook.pages, webhook.operation_metrics")
BEFORE_LOCKS = "0021"
"""The migration after it locks these tables."""
WAITING = text(
    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE datname = current_database() AND NOT granted)"
)
BUILDING = text(
    "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index"
    " WHERE datname = current_database() AND phase LIKE 'waiting for%')"
)
INVALID = text("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
SCRIPTS = ScriptDirectory(str(schema.MIGRATIONS))


async def waits_for_a_lock(connection: AsyncConnection) -> bool:
    """Whether anybody does."""
    return bool(await connection.scalar(WAITING))


async def waits_for_readers(connection: AsyncConnection) -> bool:
    """Whether the build of an index does."""
    return bool(await connection.scalar(BUILDING))


async def invalid_indexes(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(INVALID))


def test_the_newest_revision_is_that_of_the_newest_migration():
    assert SCRIPTS.get_current_head() == revision.NEWEST


async def test_tables_and_models_agree(own_database: Database):
    await require_agreement(own_database)
    await revision.require_current(own_database)


async def test_every_migration_can_be_taken_back(own_database: Database):
    await schema.downgrade(own_database, "base")
    assert await revision.current_revision(own_database) is None
    await schema.upgrade(own_database)
    assert await revision.current_revision(own_database) == revision.NEWEST
    await schema.downgrade(own_database)
    await schema.upgrade(own_database)
    await require_agreement(own_database)


async def test_an_upgrade_waits_for_no_lock_for_long_and_tries_again(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who need the table meanwhile wait behind it."""
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.1)
    await schema.downgrade(own_database, BEFORE_LOCKS)
    async with own_database.transaction() as busy:
        await busy.execute(LOCK_TABLES)
        upgrading = asyncio.create_task(schema.upgrade(own_database))
        while not await own_database.run(waits_for_a_lock):  # noqa: ASYNC110 - another process knows
            await asyncio.sleep(0.01)
        while await own_database.run(waits_for_a_lock):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not upgrading.done()
    await upgrading
    assert await revision.current_revision(own_database) == revision.NEWEST


async def test_an_upgrade_that_writers_wait_for_while_it_waits_for_them_is_tried_again(
    own_database: Database,
) -> None:
    """The migration after 0015 locks both tables. PostgreSQL ends the one that finds the deadlock."""
    await schema.downgrade(own_database, "0015")
    async with own_database.transaction() as writing:
        await writing.execute(text("SET LOCAL deadlock_timeout = '1min'"))
        await writing.execute(text("LOCK TABLE webhook.page_attempts IN ROW EXCLUSIVE MODE"))
        upgrading = asyncio.create_task(schema.upgrade(own_database))
        while not await own_database.run(waits_for_a_lock):  # noqa: ASYNC110 - another process knows
            await asyncio.sleep(0.01)
        await writing.execute(text("LOCK TABLE webhook.operation_metrics IN ROW EXCLUSIVE MODE"))
    await upgrading
    assert await revision.current_revision(own_database) == revision.NEWEST


async def test_an_upgrade_that_gets_no_lock_says_so_and_changes_nothing(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schema.downgrade(own_database, BEFORE_LOCKS)
    before = await revision.current_revision(own_database)
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(schema, "MAX_ATTEMPTS", 2)
    async with own_database.transaction() as busy:
        await busy.execute(LOCK_TABLES)
        with pytest.raises(UsageError, match="other processes use the tables: stop them"):
            await schema.upgrade(own_database)
    assert await revision.current_revision(own_database) == before


async def test_each_revision_is_a_transaction_of_its_own(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the first one's locks are not held during the last one."""
    await schema.downgrade(own_database, "0019")
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(schema, "MAX_ATTEMPTS", 1)
    async with own_database.transaction() as busy:
        await busy.execute(text("LOCK TABLE webhook.crawl_sessions IN ROW EXCLUSIVE MODE"))
        with pytest.raises(UsageError):
            await schema.upgrade(own_database)
    assert await revision.current_revision(own_database) == BEFORE_LOCKS
    await asyncio.gather(schema.upgrade(own_database), schema.upgrade(own_database))
    await require_agreement(own_database)


@pytest.mark.parametrize(
    ("before", "table", "index"),
    [
        ("0023", "deliveries", "ix_deliveries_received_at_with_body"),
        ("0020", "operation_metrics_default", "ix_operation_metrics_crawl_id_timestamp"),
        pytest.param("0012", "crawl_sessions", "ix_crawl_sessions_uncounted", marks=pytest.mark.slow),
        pytest.param("0009", "pages", "ix_pages_crawl_id_settled_in", marks=pytest.mark.slow),
    ],
)
async def test_an_index_is_built_while_others_write_and_anew_after_an_interruption(
    own_database: Database, before: str, table: str, index: str
) -> None:
    await deliver_pages(own_database, "crawl-1", "https://example.com/a")
    await index_pages(own_database, "crawl-1")
    await schema.downgrade(own_database, before)
    write = text(f"LOCK TABLE webhook.{table} IN ROW EXCLUSIVE MODE")
    async with own_database.transaction() as reading:
        await reading.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await reading.execute(text("SELECT 1"))  # an old snapshot, for which a build waits
        upgrading = asyncio.create_task(schema.upgrade(own_database))
        async with asyncio.timeout(60):
            while not await own_database.run(waits_for_readers):  # noqa: ASYNC110 - another process knows
                await asyncio.sleep(0.01)
        async with own_database.transaction() as another:
            await another.execute(text("SET LOCAL lock_timeout TO 100"))
            await another.execute(write)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
    assert any(index in left for left in await own_database.run(invalid_indexes))
    await schema.upgrade(own_database)
    assert not await own_database.run(invalid_indexes)
    await require_agreement(own_database)


async def test_an_upgrade_refuses_while_processes_run_that_it_does_not_serve(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process at this revision is one of unknown age, once a downgrade has taken what it said."""
    monkeypatch.setattr(schema, "ALIVE", timedelta(0))
    monkeypatch.setattr(schema, "PROCESS_POLL_SECONDS", 0.01)
    async with reported(own_database, "worker"):
        while not await revision.processes_before(own_database, "9999"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not await revision.processes_before(own_database, revision.NEWEST)
        await schema.downgrade(own_database, "0024")
        with pytest.raises(UsageError, match=f":{os.getpid()} since .*: stop them, then run `crawlscope"):
            await schema.upgrade(own_database)
        assert await revision.current_revision(own_database) == "0024"
        await schema.upgrade(own_database, "0025")
        monkeypatch.setattr(revision, "ALIVE", timedelta(0))  # as if it had died
        await schema.upgrade(own_database)
    await revision.require_current(own_database)


REPORT_AS_BEFORE = text("""
    INSERT INTO webhook.processes (name, kind, version, started_at, memory_bytes)
    VALUES (:name, 'worker', '0.0.1', now(), 1)
    ON CONFLICT (name) DO UPDATE SET started_at = excluded.started_at, reported_at = now()
""")
"""As versions before 0027, which do not say their revision."""


async def test_an_older_version_with_the_id_of_a_killed_process_is_not_taken_for_a_newer_one(
    database: Database,
) -> None:
    name = f"{socket.gethostname()}:{os.getpid()}"
    async with reported(database, "worker"):
        while not await revision.processes_before(database, "9999"):  # noqa: ASYNC110 - the database knows
            await asyncio.sleep(0.01)
        async with database.transaction() as connection:
            await connection.execute(REPORT_AS_BEFORE, {"name": name})
        assert await revision.processes_before(database, revision.NEWEST) == [name]


@pytest.mark.parametrize(("oldest", "works"), [("0001", True), (revision.NEWEST, True), ("9998", False)])
async def test_a_version_works_beside_a_newer_one_that_serves_it(
    own_database: Database, oldest: str, works: bool
) -> None:
    async with own_database.transaction() as connection:
        await connection.execute(text(f"UPDATE public.{revision.VERSION_TABLE} SET version_num = '9999'"))
        await connection.execute(text(f"COMMENT ON TABLE public.{revision.VERSION_TABLE} IS '{oldest}'"))
    if works:
        await revision.require_current(own_database)
    else:
        with pytest.raises(SettingsError, match="a newer version has made: update Crawlscope"):
            await revision.require_current(own_database)


async def test_a_migration_leaves_word_of_the_oldest_version_that_it_serves(own_database: Database) -> None:
    said = text(f"SELECT obj_description('public.{revision.VERSION_TABLE}'::regclass, 'pg_class')")
    newest = SCRIPTS.get_revision("head")
    assert await own_database.run(lambda connection: connection.scalar(said)) == newest.module.serves_from
    await schema.downgrade(own_database, "0019")
    assert await own_database.run(lambda connection: connection.scalar(said)) == "0019"
