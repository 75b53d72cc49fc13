"""Backups: one file with all that cannot be computed again, made while the service runs.

The file is a ZIP archive. `database.dump` is the embedded database of one moment, in the custom format of
`pg_dump`; `backup.json` describes it; the secrets of the data folder are beside it. The index is left out,
because it can be rebuilt.
"""

import asyncio
import contextlib
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError
from sqlalchemy import URL, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import __version__, models
from crawlscope.core import service_file
from crawlscope.core.errors import DatabaseUnavailable, UsageError
from crawlscope.core.file_lock import is_locked
from crawlscope.core.secrets import NOTIFY_SECRET_FILE, SECRET_FILE
from crawlscope.core.settings import Settings
from crawlscope.database import revision, schema
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database, translated_errors
from crawlscope.database.postgres_programs import find_programs, last_line

DESCRIPTION = "backup.json"
DUMP = "database.dump"
SECRETS = (SECRET_FILE, NOTIFY_SECRET_FILE)
CHUNK_BYTES = 1 << 20
IRREPLACEABLE = (models.CrawlSession, models.Delivery, models.Document, models.ChangeEvent, models.ApiKey)
"""A database that has any of these is not restored into: they would be lost."""
_NEW, _OLD = "crawlscope_restored", "crawlscope_replaced"
_DROP_BOTH = tuple(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in (_NEW, _OLD))
"""This also drops what a killed restore has left."""
_END_SESSIONS = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
"""Ends sessions of other programs, such as `psql`: a database in use cannot be renamed."""
_DAMAGED = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error)
"""The errors of `zipfile` for an archive that is damaged, newer than `zipfile`, or has a password."""
_SETTLED_BEFORE = text("UPDATE webhook.pages SET settled_in = 0 WHERE settled_in IS NOT NULL")
"""Those are transactions of the server that was backed up."""


class Backup(BaseModel):
    """The description of a backup."""

    version: str
    revision: str
    created_at: datetime
    rows: dict[str, int]
    """By table: a restored database has the same."""


async def back_up(settings: Settings, file: Path) -> Backup:
    """Writes `file`, which only its owner can read. The file appears when it is whole.

    Raises `UsageError` if it exists, if it cannot be written, or if there is no embedded database to back up.
    """
    _require_embedded(settings)
    if file.exists():  # noqa: ASYNC240 - one look
        raise UsageError(f"{file} exists: choose another name, or remove it first")
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with (
            _explained(file),
            os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as to,
        ):
            with zipfile.ZipFile(to, "w") as archive:
                for secret in (settings.data_dir / name for name in SECRETS):
                    if secret.exists():
                        archive.write(secret, secret.name)
                backup = await _dump(settings, archive)
                archive.writestr(DESCRIPTION, backup.model_dump_json(indent=1))
            to.flush()
            os.fsync(to.fileno())
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return backup


async def restore(settings: Settings, file: Path) -> Backup:
    """Fills the empty database of a stopped service, and upgrades its schema to this version's.

    Secrets that the data folder has already are kept. Raises `UsageError` if `file` is not a whole backup or
    was made by a newer version, if the service runs, or if the database has rows that would be lost.
    """
    _require_embedded(settings)
    if service_file.read(settings.data_dir) or is_locked(settings.data_dir / "up.lock"):
        raise UsageError("stop the running service first")
    with _opened(file) as archive:
        backup = await asyncio.to_thread(_description, archive, file)
        async with connected_database(settings) as database:
            async with database.transaction() as connection:
                await _require_empty(connection)
            async with _replaced(database) as restored:
                with archive.open(DUMP) as dump:
                    await _load(restored, dump)
                async with restored.transaction() as connection:
                    if (rows := await _count_rows(connection)) != backup.rows:
                        raise DatabaseUnavailable(f"the restored rows ({rows}) differ from the backup's")
                await schema.upgrade(restored)
                async with restored.transaction() as connection:
                    await connection.execute(_SETTLED_BEFORE)
                async with database.transaction() as connection:
                    await _require_empty(connection)  # another program may have written meanwhile
        for name in set(SECRETS) & set(archive.namelist()):
            with contextlib.suppress(FileExistsError):
                target = os.open(settings.data_dir / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(target, "wb") as to:
                    to.write(archive.read(name))
    return backup


async def _dump(settings: Settings, archive: zipfile.ZipFile) -> Backup:
    """Rows are counted in the snapshot that `pg_dump` reads."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected_database(settings))
        found = await revision.current_revision(database)
        if found is None:
            raise UsageError(f"there is nothing to back up in {settings.data_dir}")
        snapshots = await stack.enter_async_context(database.patient())
        engine = snapshots.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        connection = await stack.enter_async_context(Database(engine).transaction())
        snapshot = await connection.scalar(text("SELECT pg_export_snapshot()"))
        backup = Backup(
            version=__version__,
            revision=found,
            created_at=datetime.now(UTC),
            rows=await _count_rows(connection),
        )
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
        process = await _started("pg_dump", *options, f"--dbname={_url(database)}")
        assert process.stdout is not None
        with archive.open(DUMP, "w", force_zip64=True) as dump:
            while chunk := await process.stdout.read(CHUNK_BYTES):
                await asyncio.to_thread(dump.write, chunk)
        await _require_success(process)
    return backup


@contextlib.asynccontextmanager
async def _replaced(database: Database) -> AsyncIterator[Database]:
    """A new database for the block, which takes the place of `database` at its end, or leaves no trace."""
    url, name = database.engine.url, database.engine.url.database
    server = _at(url.set(database="postgres"))
    try:
        await _administer(server, *_DROP_BOTH, f"CREATE DATABASE {_NEW}")
        restored = _at(url.set(database=_NEW))
        try:
            yield restored
        finally:
            await restored.close()
            await database.close()
        async with server.transaction() as connection:
            await connection.execute(_END_SESSIONS, {"name": name})
            await connection.execute(text(f"ALTER DATABASE {name} RENAME TO {_OLD}"))
            await connection.execute(text(f"ALTER DATABASE {_NEW} RENAME TO {name}"))
    finally:
        await _administer(server, *_DROP_BOTH)
        await server.close()


def _at(url: URL) -> Database:
    return Database.open(url.render_as_string(hide_password=False), pool_size=1, statement_seconds=None)


async def _administer(server: Database, *statements: str) -> None:
    """Statements that cannot be part of a transaction."""
    with translated_errors():
        async with server.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in statements:
                await connection.execute(text(statement))


async def _load(database: Database, dump: IO[bytes]) -> None:
    options = ("--single-transaction", "--exit-on-error", "--no-owner", f"--dbname={_url(database)}")
    process = await _started("pg_restore", *options)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it says why it ended
        while chunk := await asyncio.to_thread(dump.read, CHUNK_BYTES):
            process.stdin.write(chunk)
            await process.stdin.drain()
        process.stdin.close()
    await _require_success(process)


async def _started(program: str, *arguments: str) -> asyncio.subprocess.Process:
    programs = find_programs(None)
    pipe = asyncio.subprocess.PIPE
    command = programs.command(program, *arguments)
    return await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, **programs.process_options()
    )


async def _require_success(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    said = (await process.stderr.read()).decode(errors="replace")
    if await process.wait() != 0:
        raise DatabaseUnavailable(f"the database could not be copied: {last_line(said)}")


async def _count_rows(connection: AsyncConnection) -> dict[str, int]:
    """The numbers of rows by table, for the tables that the schema has."""
    counts = {}
    for table in models.Base.metadata.sorted_tables:
        if await connection.scalar(select(func.to_regclass(table.fullname))) is not None:
            counts[table.name] = await connection.scalar(select(func.count()).select_from(table)) or 0
    return counts


async def _require_empty(connection: AsyncConnection) -> None:
    rows = await _count_rows(connection)
    if held := [table.__tablename__ for table in IRREPLACEABLE if rows.get(table.__tablename__)]:
        raise UsageError(
            f"the database has rows in {', '.join(held)} already: set CRAWLSCOPE_DATA_DIR to a new folder"
        )


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    with _explained(file):
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGED:
            raise UsageError(f"{file} is no whole backup of Crawlscope") from None
        with archive:
            yield archive


def _description(archive: zipfile.ZipFile, file: Path) -> Backup:
    """Reads the whole file, before anything of the database is dropped for it."""
    try:
        backup = Backup.model_validate_json(archive.read(DESCRIPTION))
        archive.getinfo(DUMP)
        is_whole = archive.testzip() is None
    except (KeyError, ValidationError):
        raise UsageError(f"{file} is no backup of Crawlscope") from None
    except _DAMAGED:
        is_whole = False
    if not is_whole:
        raise UsageError(f"{file} is no whole backup of Crawlscope")
    if not schema.is_known(backup.revision):
        raise UsageError(f"{file} was made by version {backup.version}: install that version or a newer one")
    return backup


def _require_embedded(settings: Settings) -> None:
    if settings.database_url is not None:
        raise UsageError(
            "CRAWLSCOPE_DATABASE_URL is set: back up your server with its own tools, such as pg_dump, "
            "and rebuild the index with `crawlscope reindex`"
        )


def _url(database: Database) -> str:
    """For libpq. The embedded server has no password."""
    return database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from error
