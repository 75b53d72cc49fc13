"""The API process: binds the port, opens the parts, serves until it is stopped."""

import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from crawlscope.api.app import create_app
from crawlscope.api.http.prometheus import show_gauges
from crawlscope.api.protocol import BoundedProtocol
from crawlscope.core import service_file
from crawlscope.core.listening import reachable_url, service_socket
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.core.time_slices import use_short_time_slices
from crawlscope.processes.index_process import keep_index_process
from crawlscope.processes.parts import service_parts

GRACEFUL_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""Longer than callers and proxies keep a connection that they do not use: a delivery that is sent while the
service closes the connection gets no answer, and Firecrawl sends it once.
"""
BACKLOG = 2048
DATE_SECONDS = 1.0
"""How long answers have the same time."""


class _Server(uvicorn.Server):
    """Serves until `stopping` is set. Leaves signals to the process, which has other parts to close too, and
    wakes up once a second for the time in its answers, not ten times.
    """

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def main_loop(self) -> None:
        while not self._stopping.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(DATE_SECONDS):
                    await self._stopping.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: Settings, stopping: asyncio.Event, *, keeps_index: bool, shares_port: bool = False
) -> None:
    """Serves until `stopping` is set. Raises `SettingsError` for an address that it cannot listen on.

    `keeps_index`: the process of the embedded index runs as a child. `shares_port`: it is one of several API
    processes, and announces their parent, which lives as long as the service.
    """
    use_short_time_slices()
    with service_socket(settings.host, settings.port, shared=shares_port) as listener:
        listener.listen(BACKLOG)
        kept = [keep_index_process(settings.data_dir)] if keeps_index and settings.embedded_index else []
        async with in_background(*kept), service_parts(settings) as parts:
            app = create_app(parts, stopping)
            server = _Server(
                uvicorn.Config(
                    app,
                    http=BoundedProtocol,
                    lifespan="on",
                    log_config=None,
                    access_log=False,
                    proxy_headers=bool(settings.trusted_proxies),
                    forwarded_allow_ips=list(map(str, settings.trusted_proxies)),
                    timeout_keep_alive=KEEP_ALIVE_SECONDS,
                    timeout_graceful_shutdown=GRACEFUL_SECONDS,
                ),
                stopping,
            )
            gc.freeze()  # what lives as long as the process need not be examined again and again
            url = reachable_url(settings.host, listener.getsockname()[1])
            service_file.write(settings.data_dir, url, os.getppid() if shares_port else None)
            try:
                async with in_background(show_gauges(parts, app.state.readings)):
                    await server.serve(sockets=[listener])
            finally:
                service_file.remove(settings.data_dir)
