"""Fixtures for every test: a real PostgreSQL with the tables in it, empty for each test."""

import asyncio
import atexit
import gc
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import text
from xdist.scheduler import LoadScopeScheduling

from crawlscope.database.engine import Database, sqlalchemy_url
from crawlscope.database.postgres_cluster import NAME
from crawlscope.timing import standalone
from crawlscope.timing.store import MeasurementBuffer
from tests.support.data_folders import give_tables, patient_postgres

TEMPLATE = "crawlscope_template"
SHARED = "crawlscope_shared"
EMPTY = """
DO $$
DECLARE
    relation regclass;
    kind "char";
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid();
    SET LOCAL session_replication_role = replica;
    FOR relation, kind IN
        SELECT oid, relkind FROM pg_class
        WHERE relkind IN ('r', 'S') AND relnamespace IN ('webhook'::regnamespace, 'queue'::regnamespace)
    LOOP
        IF kind = 'r' THEN
            EXECUTE format('DELETE FROM %s', relation);
        ELSE
            PERFORM setval(relation, 1, false);
        END IF;
    END LOOP;
END $$
"""
"""Deletes every row and restarts every sequence, even with open connections."""
SHARED_STACKS = ("quick_stack", "mcp_service")
NO_FOLDER = "/dev/null/data"
"""No user can make a folder there."""

settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")
"""How long an example takes says more of what else runs than of the code."""

gc.disable()  # until all tests are collected: examining what the run keeps doubles the time of that
atexit.register(gc.freeze)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what runs in the background so, and the commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_reaches_a_service_of_this_machine() -> Iterator[None]:
    """The default data folder may be in use: a test that would write there fails, in whichever process, and
    what no test collects is measured for nobody.
    """
    nowhere = SimpleNamespace(add_operation=lambda _: None)
    with pytest.MonkeyPatch.context() as patch, standalone.use(cast(MeasurementBuffer, nowhere)):
        patch.setenv("CRAWLSCOPE_DATA_DIR", NO_FOLDER)
        yield


class FileByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """One process runs a whole file, and all that share a running stack.

    Not `--dist loadgroup`: xdist 3.8 writes the group into a private attribute that pytest 9.2 does not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _shared_stack(Path(self.config.rootpath, file)) or file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileByFile:
    return FileByFile(config, log)


def pytest_internalerror(excrepr: object) -> None:
    """Shows the first one again at the end of the run: what xdist says after it hides it in a long log."""
    last_lines = "\n".join(str(excrepr).splitlines()[-30:])
    atexit.register(print, f"An internal error of pytest:\n{last_lines}", file=sys.__stderr__)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start services come first: at the end, long files would run alone while a core idles."""
    items.sort(key=lambda item: not _starts_services(item.path))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@cache
def _shared_stack(file: Path) -> str | None:
    text = file.read_text()
    return next((name for name in SHARED_STACKS if name in text), None)


@cache
def _starts_services(file: Path) -> bool:
    text = file.read_text()
    return any(
        name in text for name in (*SHARED_STACKS, "running_stack", "started_stack", "support.commands")
    )


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an embedded server that lives as long as the test run."""
    with tempfile.TemporaryDirectory(prefix="crawlscope-tests-") as folder:
        give_tables(Path(folder))
        with patient_postgres(Path(folder)) as url:
            asyncio.run(_trade_safety_for_speed(url))
            yield url


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> str:
    """A database with all tables that test databases are copied from; nothing else opens it."""
    asyncio.run(administer(postgres_url, f"CREATE DATABASE {TEMPLATE} TEMPLATE {NAME}"))
    return postgres_url


@pytest.fixture(scope="session")
def shared_database_url(template_url: str) -> str:
    asyncio.run(administer(template_url, f"CREATE DATABASE {SHARED} TEMPLATE {TEMPLATE}"))
    return named(template_url, SHARED)


@pytest.fixture(scope="session")
def empty_shared_database(shared_database_url: str) -> Iterator[Callable[[], None]]:
    """By one connection for all tests: a new one takes ten times as long."""
    connection: asyncpg.Connection | None = None

    async def empty() -> None:
        nonlocal connection
        if connection is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):  # a test has ended all sessions
                await connection.execute(EMPTY)
                return
        connection = await asyncpg.connect(shared_database_url)
        await connection.execute(EMPTY)

    async def close() -> None:
        if connection is not None:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:  # a loop of its own: those of the tests end with them
        runner = asyncio.Runner()
        yield lambda: thread.submit(lambda: runner.run(empty())).result()
        thread.submit(lambda: runner.run(close())).result()
        thread.submit(runner.close).result()


@pytest.fixture
def database_url(shared_database_url: str, empty_shared_database: Callable[[], None]) -> str:
    """A database with all tables and nothing in them; emptying one takes a tenth of the time of a new one."""
    empty_shared_database()
    return shared_database_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url, pool_size=5)
    yield opened
    await opened.close()


@pytest.fixture
async def own_database_url(template_url: str) -> AsyncIterator[str]:
    """A new database, for a test that changes the tables themselves or looks at their statistics."""
    name = f"test_{uuid4().hex}"
    await administer(template_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield named(template_url, name)
    await administer(template_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def own_database(own_database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(own_database_url, pool_size=5)
    yield opened
    await opened.close()


async def _trade_safety_for_speed(url: str) -> None:
    """Nothing here has to outlive the machine's power."""
    await administer(url, "ALTER SYSTEM SET fsync = off")
    await administer(url, "SELECT pg_reload_conf()")


async def administer(url: str, statement: str) -> None:
    database = Database.open(url)
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text(statement))
    await database.close()


def named(url: str, name: str) -> str:
    return sqlalchemy_url(url).set(drivername="postgresql", database=name).render_as_string(False)
