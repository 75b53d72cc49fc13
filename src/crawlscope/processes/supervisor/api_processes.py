"""Several API processes on one port: the system gives each of them a part of the connections.

Their parent holds the port, and they announce the parent: another one answers at the address while one starts
again.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from crawlscope.core import service_file
from crawlscope.core.listening import held_port
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.processes.supervisor.supervisor import CRAWLSCOPE, Process, Supervisor, index_processes

API = "api"
SHARED_API = (*CRAWLSCOPE, "serve", "--without-index", "--shared-port")


@contextmanager
def shared_port(settings: Settings) -> Iterator[int]:
    """Raises `SettingsError` if something else listens there."""
    with held_port(settings.host, settings.port) as port:
        try:
            yield port
        finally:
            service_file.remove(settings.data_dir)


def environment(settings: Settings, port: int) -> dict[str, str]:
    """The environment of the processes of a service, with all settings of this process."""
    explicit = {"DATA_DIR": str(settings.data_dir), "HOST": settings.host, "PORT": str(port)}
    return {**os.environ, **{f"{ENV_PREFIX}{name}": value for name, value in explicit.items()}}


def other_api_processes(settings: Settings, command: Sequence[str], env: Mapping[str, str]) -> list[Process]:
    """All but the first one."""
    return [Process(f"{API}-{number}", command, env) for number in range(2, settings.api_processes + 1)]


async def serve_several(settings: Settings, stopping: asyncio.Event, *, keeps_index: bool) -> None:
    """Keeps the API processes running until `stopping` is set, and those of the embedded index. Raises
    `SettingsError` for an address that it cannot listen on, and `GaveUp`."""
    with shared_port(settings) as port:
        env = environment(settings, port)
        indexes = (
            index_processes(settings.data_dir, (*CRAWLSCOPE, "index"), env)
            if keeps_index and settings.embedded_index
            else []
        )
        if indexes:  # the API processes are stopped first: they finish what they have begun

            async def at_once() -> bool:
                """The API processes wait for the index by themselves."""
                return True

            indexes[-1] = replace(indexes[-1], ready=at_once)
        first = Process(API, SHARED_API, env)
        supervisor = Supervisor([*indexes, first, *other_api_processes(settings, SHARED_API, env)])

        async def run() -> None:
            await supervisor.start()
            await supervisor.wait()

        running = asyncio.create_task(run())
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        await supervisor.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if not running.cancelled() and (error := running.exception()):
            raise error
