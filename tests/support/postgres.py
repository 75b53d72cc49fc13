"""The running processes of an embedded PostgreSQL, as its users and the operating system see them."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.postgres_cluster import Cluster
from crawlscope.database.postgres_programs import Programs, account_for, find_programs
from tests.support.fakes.loopback import free_port


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


class OwnPostgres:
    """A server of the user's own, on loopback: `CRAWLSCOPE_DATABASE_URL` names it."""

    def __init__(self, programs: Path | None = None) -> None:
        """`programs` is the folder of another version's, such as `/usr/lib/postgresql/15/bin`."""
        self._temporary = tempfile.TemporaryDirectory(prefix="crawlscope-postgres-")
        self.folder, self.port = Path(self._temporary.name), free_port()
        account = account_for(self.folder)
        self.programs = Programs(programs, account) if programs else find_programs(account)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://crawlscope@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        self.programs.give(self.folder)
        options = ("--username=crawlscope", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        command = self.programs.command("initdb", "-D", str(self.folder / "data"), *options)
        subprocess.run(command, check=True, capture_output=True, **self.programs.process_options())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._temporary.cleanup()

    def start(self) -> None:
        """Returns when it accepts sessions; what a killed server left may still end meanwhile."""
        settings = ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=200")
        options = [part for each in settings for part in ("-c", each)]
        command = self.programs.command("postgres", "-D", str(self.folder / "data"), *options)
        command += ["-p", str(self.port), "-k", str(self.folder)]
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "the server does not start"
            if self._process is None or self._process.poll() is not None:
                nowhere = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    command, stdout=nowhere, stderr=nowhere, **self.programs.process_options()
                )
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: its other processes end when they notice."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """In the block, no process of the server answers, nor refuses."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        processes = [server, *server.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def _answers(self) -> bool:
        with suppress(OSError, asyncpg.PostgresError):
            return ask(self.url, "SELECT 1") == 1
        return False


@contextmanager
def transaction_pooler(postgres: OwnPostgres, program: str) -> Iterator[str]:
    """The URL of a PgBouncer before `postgres` that gives each transaction any of two sessions."""
    port = free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": 2,
        "unix_socket_dir": "",
        "logfile": postgres.folder / "pgbouncer.log",
    }
    lines = ["[databases]", f"* = host=127.0.0.1 port={postgres.port} user=crawlscope", "[pgbouncer]"]
    file = postgres.folder / "pgbouncer.ini"
    file.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())]))
    file.chmod(0o644)
    process = subprocess.Popen([program, "--quiet", str(file)], **postgres.programs.process_options())
    try:
        yield f"postgresql://crawlscope@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(30)
