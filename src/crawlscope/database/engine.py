"""Transactions on PostgreSQL that raise Crawlscope's own errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import event, func, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from crawlscope.core.backoff import backoff, retry_context
from crawlscope.core.errors import CrawlscopeError, DatabaseUnavailable, SettingsError
from crawlscope.core.values import storable_json

T = TypeVar("T")

LAST_PORT = 65_535
DRIVER_OPTIONS = frozenset(["host", "port", "user", "password", "passfile", "database", "dbname", "service"])
DRIVER_OPTIONS |= {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation"}
DRIVER_OPTIONS |= {"ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"}
"""libpq's options that the driver reads after the `?` of a URL."""
FILE_OPTIONS = frozenset(["sslrootcert", "sslcert", "sslkey", "sslcrl"])
CONNECT_SECONDS = 10
"""For one attempt."""
CONNECTION_WAIT_SECONDS = 120
"""How long a transaction waits for a connection, while the pool or the server has none to spare."""
STATEMENT_SECONDS = 120
TRUSTED_SECONDS = 15.0
"""A connection that was used since then is not tested before it is used again."""
_USED_AT = "used_at"
MAX_ATTEMPTS = 5
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
RETRIED_SQLSTATES = {"40001", DEADLOCK, "23503", "23505", "23514"}
"""Serialization failure, deadlock, and in the meantime a referenced row that was deleted, a row that was
inserted or a partition that was made: the same transaction can pass, or see the change, when it runs again.
"""
UNAVAILABLE_SQLSTATE_CLASSES = {"08", "53", "57", "58", "XX", "25"}
"""Connection lost, out of resources, shut down by an operator, system error, corruption, read-only."""


def sqlalchemy_url(database_url: str, setting: str = "CRAWLSCOPE_DATABASE_URL") -> URL:
    """`postgresql://…` as people write it, for the asyncpg driver; raises `SettingsError` with `setting`."""
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        raise SettingsError(
            f"{setting}: write it as postgresql://user:password@host:port/name, and @ in the password as %40"
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(f"{setting}: must begin with postgresql://")
    if url.port is not None and not 0 < url.port <= LAST_PORT:
        raise SettingsError(f"{setting}: the port must be 1 to {LAST_PORT}")
    # SQLAlchemy's `ssl` is libpq's `sslmode`.
    options = {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}
    if not options.keys() <= DRIVER_OPTIONS:
        raise SettingsError(
            f"{setting}: holds an option that the driver does not know, take it out; "
            "sslmode and sslrootcert are some it does"
        )
    for name in FILE_OPTIONS & options.keys():
        if not Path(str(options[name])).expanduser().is_file():
            raise SettingsError(f"{setting}: {name} must name a file that is there")
    return url.set(drivername="postgresql+asyncpg", query=options)


def _driver_arguments(url: URL, application_name: str) -> dict[str, Any]:
    """The driver parses the URL itself: SQLAlchemy would not pass on all of libpq's options."""
    return {
        "dsn": url.set(drivername="postgresql").render_as_string(hide_password=False),
        "timeout": CONNECT_SECONDS,
        "server_settings": {"application_name": application_name},
    }


async def connect(dsn: str | None = None, **arguments: Any) -> asyncpg.Connection:
    """Tries again while the server has no connection to spare."""
    try:
        async for attempt in retry_context(
            on=asyncpg.exceptions.TooManyConnectionsError,
            attempts=None,
            timeout=CONNECTION_WAIT_SECONDS,
            wait_max=2.0,
        ):
            with attempt:
                return await asyncpg.connect(dsn, **arguments)
        raise AssertionError("unreachable")
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise SettingsError(f"CRAWLSCOPE_DATABASE_URL: {_one_line(error)}") from None


class Database:
    """Transactions on one PostgreSQL. Raises `DatabaseUnavailable` whenever it does not answer."""

    def __init__(self, engine: AsyncEngine, direct_url: URL | None = None) -> None:
        self.engine = engine
        self._direct_url = direct_url or engine.url

    @classmethod
    def open(
        cls,
        database_url: str,
        pool_size: int = 5,
        statement_seconds: float | None = STATEMENT_SECONDS,
        direct_url: str | None = None,
    ) -> "Database":
        """Connects when it is first used, and never holds more than `pool_size` connections.

        `direct_url` leads to the server itself if `database_url` leads to a pooler, which gives a transaction
        any session: some work needs a session of its own.
        """
        url = sqlalchemy_url(database_url)
        arguments = _driver_arguments(url, "crawlscope")
        engine = create_async_engine(
            url,
            async_creator=partial(connect, **arguments, command_timeout=statement_seconds),
            pool_size=pool_size,
            max_overflow=0,
            pool_use_lifo=True,  # few connections are used, and the others cost no test
            pool_timeout=CONNECTION_WAIT_SECONDS,
            json_serializer=storable_json,
        )
        event.listen(engine.sync_engine, "checkout", _replace_lost)
        event.listen(engine.sync_engine, "checkin", _note_use)
        direct = sqlalchemy_url(direct_url, "CRAWLSCOPE_DATABASE_DIRECT_URL") if direct_url else None
        return cls(engine, direct)

    def driver_arguments(self, application_name: str) -> dict[str, Any]:
        """For connections to the server itself by the driver alone; statements have no limit of time."""
        return _driver_arguments(self._direct_url, application_name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Commits at the end of the block, rolls back when it raises."""
        with translated_errors():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[AsyncConnection]:
        """Each statement is a transaction of its own: `BEGIN` and `COMMIT` would be two more."""
        with translated_errors():
            async with self.engine.connect() as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, and again when that lost against another one (deadlock)."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                async with self.engine.begin() as connection:
                    return await work(connection)
            except DBAPIError as error:
                if sqlstate(error) not in RETRIED_SQLSTATES or attempt == MAX_ATTEMPTS:
                    raise_translated(error)
            except (OSError, TimeoutError, asyncpg.PostgresError, PoolTimeoutError) as error:
                raise_translated(error)
            await asyncio.sleep(backoff(attempt, first_seconds=0.02, max_seconds=1.0))
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def alone(self, *key: int) -> AsyncIterator[bool]:
        """True if this process got the advisory lock of that key; it ends with the block or the process."""
        with translated_errors():
            async with AsyncExitStack() as stack:
                pooled = self._direct_url != self.engine.url
                server = await stack.enter_async_context(self.patient()) if pooled else self
                connection = await stack.enter_async_context(server.engine.connect())
                session = await connection.execution_options(isolation_level="AUTOCOMMIT")
                try:
                    yield bool(await session.scalar(select(func.pg_try_advisory_lock(*key))))
                finally:
                    await connection.invalidate()  # the lock ends with its session

    @asynccontextmanager
    async def patient(self, statement_seconds: float | None = None) -> AsyncIterator["Database"]:
        """One more connection, to the server itself, for statements that may take longer; None: any time."""
        url = self._direct_url.render_as_string(hide_password=False)
        patient = Database.open(url, pool_size=1, statement_seconds=statement_seconds)
        try:
            yield patient
        finally:
            await patient.close()

    async def ping(self) -> None:
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _replace_lost(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Tests a connection that was idle, which costs three statements; the loss of another one was noticed.

    Raises `DisconnectionError`, upon which the pool opens another connection.
    """
    idle_since = record.info.get(_USED_AT)
    if idle_since is None:
        return
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    if time.monotonic() - idle_since > TRUSTED_SECONDS:
        try:
            connection.ping()
        except Exception as error:
            raise DisconnectionError from error


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


class translated_errors:  # noqa: N801 - used as a statement
    """Turns the driver's errors of a database that is down into `DatabaseUnavailable`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, CrawlscopeError):
            raise_translated(error)


def raise_translated(error: Exception) -> None:
    """Raises `DatabaseUnavailable` if `error` means that, otherwise `error` itself."""
    if isinstance(error, DBAPIError):
        unavailable = (
            error.connection_invalidated
            or isinstance(error, OperationalError | InterfaceError)
            or sqlstate(error)[:2] in UNAVAILABLE_SQLSTATE_CLASSES
        )
    elif isinstance(error, asyncpg.PostgresError):
        unavailable = (error.sqlstate or "")[:2] in UNAVAILABLE_SQLSTATE_CLASSES | {"28", "3D"}
    else:
        unavailable = isinstance(error, OSError | TimeoutError | PoolTimeoutError | asyncpg.InterfaceError)
    if unavailable:
        raise DatabaseUnavailable(f"the database does not answer: {_one_line(error)}") from error
    raise error


def sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _one_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    words = str(cause).splitlines()
    return words[0] if words else type(cause).__name__
