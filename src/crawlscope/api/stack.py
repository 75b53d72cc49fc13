"""The service for a command: the one that runs already, or one that is started for as long as needed."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from crawlscope.api.client import ServiceClient
from crawlscope.core.data_dir import explained
from crawlscope.core.errors import ServiceUnavailable, SettingsError
from crawlscope.core.file_lock import is_locked
from crawlscope.core.listening import CANNOT_LISTEN, bound_socket
from crawlscope.core.periodic import run_periodically
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.processes.supervisor.lifeline import Lifeline

T = TypeVar("T")

READY_SECONDS = 240.0
STOP_SECONDS = 60.0
RESTART_SECONDS = 15.0
"""Time that a service which this process did not start has to restart before another one is started."""
OPENING_SECONDS = 20.0
"""Time that a running service has to open its index."""
POLL_INTERVAL_SECONDS = 0.1
MAX_LOG_BYTES = 10 * 1024 * 1024
LOG_CHECK_SECONDS = 10.0
MAX_STARTS = 3
"""The maximum number of starts, because another program can take the port meanwhile."""


class Stack:
    """Stops the service that it started when its block ends, and leaves any other service alone.

    The service also stops when this process is killed, because this process holds its lifeline.
    """

    client: ServiceClient

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._log = settings.data_dir / "logs" / "up.log"
        self._lifeline = Lifeline()
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._starts = 0
        self._log_watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Stack":
        self.client = ServiceClient.of(self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._log_watch is not None:
                self._log_watch.cancel()
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
                try:
                    await asyncio.to_thread(self._child.wait, STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    await asyncio.to_thread(self._child.wait)
        finally:
            self._lifeline.close()
            await self.client.aclose()

    @property
    def is_own(self) -> bool:
        """Whether the service stops with this stack."""
        return self._child is not None

    async def bring_up(self) -> None:
        """Returns when a service is ready. Raises `ServiceUnavailable`, `SettingsError`."""
        deadline = time.monotonic() + READY_SECONDS
        while not await self.client.is_ready():
            if time.monotonic() >= deadline:
                if self._child is None:
                    await self.client.require_ready()  # raises with the reason
                raise ServiceUnavailable(
                    f"the service was not ready after {READY_SECONDS:.0f} s: {self._last_log_line()}"
                )
            if self.client.url is None:
                self._ensure_child()
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def recover(self) -> None:
        """Like `bring_up` after the service was lost, but first waits for a service of others to restart."""
        deadline = time.monotonic() + (0.0 if self.is_own else RESTART_SECONDS)
        while time.monotonic() < deadline:
            if await self.client.is_ready():
                return
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        await self.bring_up()

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks again while the service opens its index."""
        deadline = time.monotonic() + OPENING_SECONDS
        while True:
            try:
                return await ask()
            except ServiceUnavailable:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    def _ensure_child(self) -> None:
        """Starts `crawlscope up`, unless this or another process is starting it already."""
        code = None if self._child is None else self._child.poll()
        if self._child is not None and code is None:
            return
        if is_locked(self.settings.data_dir / "up.lock"):
            self._child = None
        elif code == SettingsError.exit_code:
            raise SettingsError(self._last_log_line())
        elif code is not None and not self._lost_port():
            raise ServiceUnavailable(f"the service does not start: {self._last_log_line()}")
        else:
            self._start_child()

    def _lost_port(self) -> bool:
        """Whether another program took the port between the choice and the start of the service."""
        chosen = "port" not in self.settings.model_fields_set and self._starts < MAX_STARTS
        return chosen and CANNOT_LISTEN in self._last_log_line()

    def _start_child(self) -> None:
        with explained(self.settings.data_dir):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._limit_log()
            self._log_start = os.fstat(descriptor).st_size
        self._starts += 1
        given = {f"{ENV_PREFIX}DATA_DIR": str(self.settings.data_dir)}
        if "port" not in self.settings.model_fields_set:
            given[f"{ENV_PREFIX}PORT"] = str(_free_port(self.settings.host, self.settings.port))
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "crawlscope", "up"],
                env=os.environ | given | self._lifeline.environment,
                pass_fds=self._lifeline.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C is for the command, which then stops the service in order
            )
        finally:
            os.close(descriptor)
        if self._log_watch is None:
            self._log_watch = asyncio.create_task(
                run_periodically(
                    partial(asyncio.to_thread, self._limit_log),
                    interval_seconds=LOG_CHECK_SECONDS,
                    retry_seconds=LOG_CHECK_SECONDS,
                    failure_event="log_not_limited",
                )
            )

    def _limit_log(self) -> None:
        """Empties a log that is too long; its writers append, so that they continue at the new end."""
        with suppress(OSError):
            if self._log.stat().st_size > MAX_LOG_BYTES:
                os.truncate(self._log, 0)

    def _last_log_line(self) -> str:
        try:
            written = self._log.read_bytes()[self._log_start :]
        except OSError:
            written = b""
        lines = [line.strip() for line in written.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].removeprefix("crawlscope: ") if lines else f"see {self._log}"


def _free_port(host: str, preferred: int) -> int:
    """`preferred` if it is free, otherwise one that the system chooses.

    Chosen here and not by the service, so that the service has the same port after a restart.
    """
    for port in (preferred, 0):
        with suppress(OSError), bound_socket(host, port) as bound:
            number: int = bound.getsockname()[1]
            return number
    return preferred  # the service says why it cannot listen on this host
