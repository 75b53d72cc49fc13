"""`crawlscope up`: embedded database, index, API and workers, kept running by one process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import httpx2

from crawlscope.core import service_file
from crawlscope.core.data_dir import explained, make_shards
from crawlscope.core.errors import GaveUp, SettingsError, UsageError
from crawlscope.core.file_lock import FileLock
from crawlscope.core.settings import Settings
from crawlscope.database import connections
from crawlscope.database.connect import database_and_server
from crawlscope.processes.supervisor.api_processes import (
    API,
    SHARED_API,
    environment,
    other_api_processes,
    shared_port,
)
from crawlscope.processes.supervisor.supervisor import CRAWLSCOPE, Process, Supervisor, index_processes
from crawlscope.processes.supervisor.worker_deaths import WorkerDeaths

API_START_SECONDS = 180.0
"""Generous: a process that cannot work ends anyway, and a busy machine takes half a minute to start one."""
READY_SECONDS = 10.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Commands:
    """The command of each kind of process."""

    index: Sequence[str] = (*CRAWLSCOPE, "index")
    api: Sequence[str] = (*CRAWLSCOPE, "serve", "--without-index")
    shared_api: Sequence[str] = SHARED_API
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
    data_dir, lock = settings.data_dir, FileLock(settings.data_dir / "up.lock")
    with explained(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        alone = lock.try_acquire()
    if not alone:
        service = service_file.read(data_dir)
        raise UsageError(
            f"already running at {service.url}" if service else f"already starting or stopping in {data_dir}"
        )
    lock.drop_in_forked_children()
    try:
        await _until_signal(_run(settings, on_ready, prepare, commands or Commands()))
    except GaveUp as error:
        sys.stderr.write(f"crawlscope: {error}\n")
        return 1
    finally:
        lock.release()
    return 0


async def _run(
    settings: Settings,
    on_ready: Callable[[str], None],
    prepare: Callable[[], Awaitable[None]],
    commands: Commands,
) -> None:
    async with (
        database_and_server(settings, connections.SUPERVISOR) as (database, server),
        httpx2.AsyncClient(timeout=READY_SECONDS, trust_env=False) as client,
    ):
        await prepare()
        deaths, address = WorkerDeaths(database), ""

        async def api_is_ready() -> bool:
            nonlocal address
            service = service_file.read(settings.data_dir)
            if service is not None and service.pid in (supervisor.pid(API), os.getpid()):
                with contextlib.suppress(httpx2.HTTPError):
                    answer = await client.get(f"{service.url}/readyz")
                    address = service.url if answer.status_code == httpx2.codes.OK else ""
            return address != ""

        workers = await connections.affordable_workers(database, settings.workers, settings.api_processes)
        make_shards(settings.data_dir, settings.index_processes)
        watch: list[Callable[[], Awaitable[None]]] = [deaths.write]
        if server is not None:
            watch.append(partial(asyncio.to_thread, server.ensure_running))
        with _port(settings) as port:
            processes = _processes(settings, commands, environment(settings, port), api_is_ready, workers)
            supervisor = Supervisor(processes, watch=watch, on_exit=deaths.note)
            try:
                await supervisor.start()
                on_ready(address)
                await supervisor.wait()
            finally:
                await supervisor.stop()


@contextlib.contextmanager
def _port(settings: Settings) -> Iterator[int]:
    """Held here if several API processes share it."""
    if settings.api_processes == 1:
        yield settings.port
        return
    try:
        with shared_port(settings) as port:
            yield port
    except SettingsError as error:
        raise GaveUp(f"{API}: {error}") from None


def _processes(
    settings: Settings,
    commands: Commands,
    env: Mapping[str, str],
    api_is_ready: Callable[[], Awaitable[bool]],
    workers: int,
) -> list[Process]:
    """In the order in which they start."""
    api = commands.api if settings.api_processes == 1 else commands.shared_api
    return [
        *(index_processes(settings.data_dir, commands.index, env) if settings.embedded_index else []),
        Process(API, api, env, api_is_ready, API_START_SECONDS),
        *other_api_processes(settings, api, env),
        *[Process(f"worker-{number}", commands.index_worker, env) for number in range(1, workers + 1)],
        Process("crawler", commands.crawler, env),
    ]


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
