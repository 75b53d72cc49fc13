"""`crawlscope up`: the embedded database, the API process and the workers, kept running by one process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import structlog

from crawlscope.core import service_file
from crawlscope.core.data_dir import explained
from crawlscope.core.errors import DatabaseUnavailable, GaveUp, UsageError
from crawlscope.core.file_lock import FileLock
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.database import connections
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database
from crawlscope.processes.supervisor.crashes import Crashes
from crawlscope.processes.supervisor.supervisor import Process, Supervisor

API = "api"
API_READY_SECONDS = 180.0
"""Generous: one that cannot work ends by itself, and a busy machine takes half a minute to start it."""
ASK_SECONDS = 10.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CRAWLSCOPE = (sys.executable, "-m", "crawlscope")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Commands:
    """How the three kinds of process are started."""

    api: Sequence[str] = (*CRAWLSCOPE, "serve")
    index_worker: Sequence[str] = (*CRAWLSCOPE, "worker", "--only", "index")
    crawler: Sequence[str] = (*CRAWLSCOPE, "worker", "--only", "crawl")


async def up(
    settings: Settings,
    on_ready: Callable[[str], None],
    prepare: Callable[[], Awaitable[None]],
    *,
    commands: Commands | None = None,
) -> int:
    """Runs everything until SIGTERM, SIGINT or SIGHUP, then stops it all; the exit code.

    `prepare` runs when the database is up and before anything uses it. `on_ready` gets the service's address.
    Raises `UsageError` when the data folder has its `up` already, and `DatabaseUnavailable`. Code 1: it gave
    up; stderr has the reason.
    """
    with _alone(settings.data_dir):
        try:
            await _until_signal(_run(settings, on_ready, prepare, commands or Commands()))
        except GaveUp as error:
            sys.stderr.write(f"crawlscope: {error}\n")
            return 1
    return 0


async def _run(
    settings: Settings,
    on_ready: Callable[[str], None],
    prepare: Callable[[], Awaitable[None]],
    commands: Commands,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        watch: list[Callable[[], Awaitable[None]]] = []
        database_url = settings.database_url.get_secret_value() if settings.database_url else ""
        if settings.embedded_database:
            postgres = EmbeddedPostgres(settings.data_dir, connections.needed(settings.workers))
            stack.push_async_callback(asyncio.to_thread, postgres.release)
            database_url = await asyncio.to_thread(postgres.acquire)
            watch.append(lambda: asyncio.to_thread(postgres.ensure_running))
        await prepare()
        database = Database.open(database_url, pool_size=connections.SUPERVISOR)
        stack.push_async_callback(database.close)
        crashes = Crashes(database)
        watch.append(crashes.write)
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=ASK_SECONDS, trust_env=False))
        address = ""

        async def api_is_ready() -> bool:
            nonlocal address
            address = await _ready_address(client, settings.data_dir, supervisor.pid(API))
            return address != ""

        workers = await _workers(database, settings.workers)
        supervisor = Supervisor(
            _processes(settings, commands, api_is_ready, workers), watch=watch, on_exit=crashes.note
        )
        stack.push_async_callback(supervisor.stop)
        await supervisor.start()
        on_ready(address)
        await supervisor.wait()


def _processes(
    settings: Settings, commands: Commands, api_is_ready: Callable[[], Awaitable[bool]], workers: int
) -> list[Process]:
    explicit = {"DATA_DIR": str(settings.data_dir), "HOST": settings.host, "PORT": str(settings.port)}
    env = {**os.environ, **{f"{ENV_PREFIX}{name}": value for name, value in explicit.items()}}
    return [
        Process(API, commands.api, env, api_is_ready, API_READY_SECONDS),
        *[Process(f"worker-{number}", commands.index_worker, env) for number in range(1, workers + 1)],
        Process("crawler", commands.crawler, env),
    ]


async def _workers(database: Database, wanted: int) -> int:
    """As many as the server's connections suffice for; all while it cannot be asked."""
    try:
        limit = await connections.limit_of(database)
    except DatabaseUnavailable:
        return wanted
    workers = min(wanted, connections.workers_within(limit))
    if workers < wanted:
        log.warning(
            "workers_limited",
            started=workers,
            configured=wanted,
            reason=f"PostgreSQL allows this user {limit} connections and {connections.needed(wanted)} are "
            "needed: raise its max_connections, or lower CRAWLSCOPE_WORKERS",
        )
    return workers


async def _ready_address(client: httpx2.AsyncClient, data_dir: Path, pid: int | None) -> str:
    """Where the service with this process id can be reached; empty until it says so and can work."""
    service = service_file.read(data_dir)
    if service is None or service.pid != pid:
        return ""
    try:
        answer = await client.get(f"{service.url}/readyz")
    except httpx2.HTTPError:
        return ""
    return service.url if answer.status_code == httpx2.codes.OK else ""


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Raises `UsageError` while another `up` has the data folder."""
    lock = FileLock(data_dir / "up.lock")
    with explained(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        taken = lock.try_acquire()
    if not taken:
        service = service_file.read(data_dir)
        raise UsageError(
            f"already running at {service.url}" if service else f"already starting or stopping in {data_dir}"
        )
    lock.drop_in_forked_children()
    try:
        yield
    finally:
        lock.release()


async def _until_signal(work: Coroutine[None, None, None]) -> None:
    """Runs `work` to its end, or cancels it on the first signal; while it cleans up, others are ignored."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, asked.set)
    task, signalled = asyncio.create_task(work), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        signalled.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
