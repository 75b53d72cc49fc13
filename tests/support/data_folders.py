"""The first content of data folders, made once for all folders of a test process."""

import asyncio
import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database
from crawlscope.database.postgres_cluster import Cluster


def share_cache(data_dir: Path) -> None:
    """Saves each service a second, and 70 MB."""
    data_dir.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "cache").exists():
        (data_dir / "cache").symlink_to(_new_folder("cache"))


def give_tables(data_dir: Path) -> None:
    """An embedded PostgreSQL with all tables; its own would cost each service two seconds."""
    own = Cluster(data_dir)
    if not own.data.exists():
        own.prepare_folder()
        subprocess.run(["cp", "-a", _cluster_with_tables().data, own.data], check=True)


@cache
def _cluster_with_tables() -> Cluster:
    folder = _new_folder("tables")
    with patient_postgres(folder) as url, ThreadPoolExecutor(1) as thread:  # others may run a loop here
        thread.submit(asyncio.run, _make_tables(url)).result()
    return Cluster(folder)


@contextmanager
def patient_postgres(data_dir: Path) -> Iterator[str]:
    """The URL of its embedded server, which may take minutes to start beside other programs."""
    server = EmbeddedPostgres(data_dir)
    try:
        yield server.acquire(timeout_seconds=240)
    finally:
        server.release()


async def _make_tables(url: str) -> None:
    database = Database.open(url)
    await schema.upgrade(database)
    await database.close()


@cache
def _new_folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"crawlscope-tests-{name}-"))
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder
