"""The process of the embedded index: it alone opens its files, and serves the API process and the workers."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from crawlscope.core.data_dir import shard_folders
from crawlscope.core.errors import IndexUnavailable, SettingsError
from crawlscope.core.periodic import in_background, run_periodically
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.core.time_slices import use_short_time_slices
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.optimizing import Goal
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.index.socket_server import IndexServer
from crawlscope.processes.supervisor.lifeline import GRACE_SECONDS
from crawlscope.processes.supervisor.supervisor import CRAWLSCOPE, Supervisor, index_processes

TAKE_OVER_SECONDS = GRACE_SECONDS + 5
"""Time for the process of a killed service to end."""
POLL_INTERVAL_SECONDS = 0.1
OPTIMIZE_INTERVAL_SECONDS = {Goal.FROZEN: 2.0, Goal.LINKED: 20.0}
SWITCH_SECONDS = 0.0005
"""A query waits no longer for the interpreter while another thread prepares an update."""
RESTART_SECONDS = 2.0


async def run_index(settings: Settings, stopping: asyncio.Event, shard: int = 1) -> None:
    """Serves a shard, counted from 1, until `stopping` is set."""
    if not settings.embedded_index:
        raise SettingsError("CRAWLSCOPE_QDRANT_URL is set: the index needs no process of its own")
    folders = shard_folders(settings.data_dir)
    if not 1 <= shard <= len(folders):
        raise SettingsError(f"the embedded index has {len(folders)} shards: there is no shard {shard}")
    sys.setswitchinterval(SWITCH_SECONDS)
    use_short_time_slices()
    async with embedded_indexes(folders[shard - 1]):
        await stopping.wait()


@asynccontextmanager
async def embedded_indexes(data_dir: Path) -> AsyncIterator[None]:
    """Serves the indexes from this process. Raises `IndexUnavailable` if another process keeps doing so."""
    indexes = EdgeIndexes(data_dir)
    server = IndexServer(indexes, socket_path_for(data_dir))
    deadline = time.monotonic() + TAKE_OVER_SECONDS
    while True:
        try:
            await server.start()
            break
        except IndexUnavailable:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
    optimizing = [
        run_periodically(
            partial(indexes.optimize, goal),
            interval_seconds=seconds,
            retry_seconds=seconds,
            failure_event="index_optimization_failed",
        )
        for goal, seconds in OPTIMIZE_INTERVAL_SECONDS.items()
    ]
    try:
        async with in_background(*optimizing):
            yield
    finally:
        await server.stop()
        await indexes.aclose()


async def keep_index_process(data_dir: Path) -> None:
    """Keeps the processes running as children of this one, until cancelled."""

    async def keep() -> None:
        env = {**os.environ, f"{ENV_PREFIX}DATA_DIR": str(data_dir)}
        supervisor = Supervisor(index_processes(data_dir, (*CRAWLSCOPE, "index"), env))
        try:
            await supervisor.start()
            await supervisor.wait()
        finally:
            await supervisor.stop()

    await run_periodically(
        keep,
        interval_seconds=RESTART_SECONDS,
        retry_seconds=RESTART_SECONDS,
        failure_event="index_process_failed",
    )
