"""What runs of an embedded PostgreSQL, as its users and the operating system see it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.postgres_cluster import Cluster


def server_processes(data_dir: Path) -> list[psutil.Process]:
    return Cluster(data_dir).processes() if (data_dir / "postgres").exists() else []


def server_pid(data_dir: Path) -> int | None:
    """The process that the server's own file names, if that runs."""
    with suppress(OSError, ValueError, IndexError):
        pid = int((data_dir / "postgres/data/postmaster.pid").read_text().splitlines()[0])
        return pid if pid in [process.pid for process in server_processes(data_dir)] else None
    return None


def supervisors(data_dir: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (words := process.info["cmdline"])
        and "crawlscope.database.postgres_supervisor" in words
        and words[-1] == str(data_dir)
    ]


def supervisor_pid(data_dir: Path) -> int | None:
    return next((process.pid for process in supervisors(data_dir)), None)


def nothing_runs(data_dir: Path) -> bool:
    return not server_processes(data_dir) and not supervisors(data_dir)


def answers(data_dir: Path) -> bool:
    with suppress(OSError, asyncpg.PostgresError):
        return ask(EmbeddedPostgres(data_dir).url, "SELECT 1") == 1
    return False


def ask(url: str, query: str) -> object:
    """From code that is async or not."""

    async def fetch() -> object:
        connection = await asyncpg.connect(url, timeout=30)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, fetch()).result()


def socket_folder(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])
