"""The running service for a command: the one that runs already, or a stack started for as long as needed."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from crawlscope.api.client import ServiceClient
from crawlscope.core.data_dir import explained
from crawlscope.core.errors import ServiceUnavailable, SettingsError
from crawlscope.core.file_lock import is_locked
from crawlscope.core.settings import ENV_PREFIX, Settings
from crawlscope.processes.supervisor.lifeline import Lifeline

T = TypeVar("T")

READY_SECONDS = 90.0
STOP_SECONDS = 60.0
AWAY_SECONDS = 15.0
"""How long somebody else's service may be gone, for a restart, before a stack is started in its place."""
OPENING_SECONDS = 20.0
"""How long a service that is up may take to open its index."""
POLL_SECONDS = 0.1
LOG_BYTES = 10 * 1024 * 1024
LOG_CHECK_SECONDS = 10.0
WRONG_SETTINGS = 2


@asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[ServiceClient]:
    async with Stack(settings) as stack:
        await stack.bring_up()
        yield stack.client


class Stack:
    """Owns what it started, and stops it when its block ends; a service that ran before is left alone.

    What it started also ends when this process is killed: it holds the other end of a lifeline.
    """

    client: ServiceClient

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = settings.data_dir / "logs" / "up.log"
        self._lifeline = Lifeline()
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._log_watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Stack":
        self.client = ServiceClient.of(self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._stop()
        finally:
            self._lifeline.close()
            await self.client.aclose()

    @property
    def is_own(self) -> bool:
        """Whether the service goes when this stack does."""
        return self._child is not None

    async def bring_up(self) -> None:
        """Returns when a service is ready. Raises `ServiceUnavailable`, `SettingsError`."""
        deadline = time.monotonic() + READY_SECONDS
        while not await self.client.is_ready():
            if time.monotonic() >= deadline:
                await self._give_up()
            if self.client.url is None:
                self._have_child()
            await asyncio.sleep(POLL_SECONDS)

    async def recover(self) -> None:
        """Like `bring_up` after the service was lost; gives somebody else's the time to restart."""
        patience_seconds = 0.0 if self.is_own else AWAY_SECONDS
        for _ in range(round(patience_seconds / POLL_SECONDS)):
            if await self.client.is_ready():
                return
            await asyncio.sleep(POLL_SECONDS)
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
            await asyncio.sleep(POLL_SECONDS)

    # ------------------------------------------------------------------ starting

    def _have_child(self) -> None:
        """Starts `up`, unless it is being started here or by somebody else."""
        code = None if self._child is None else self._child.poll()
        if self._child is not None and code is None:
            return
        if is_locked(self._settings.data_dir / "up.lock"):
            self._child = None
            return
        if code == WRONG_SETTINGS:
            raise SettingsError(self._last_words())
        if code is not None:
            raise ServiceUnavailable(f"the service does not start: {self._last_words()}")
        self._spawn()

    def _spawn(self) -> None:
        with explained(self._settings.data_dir):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            _bound(self._log)
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._log_start = os.fstat(descriptor).st_size
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "crawlscope", "up"],
                env=self._environment(),
                pass_fds=self._lifeline.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C is for the command, which then stops its stack in order
            )
        finally:
            os.close(descriptor)
        if self._log_watch is None:
            self._log_watch = asyncio.create_task(_keep_bounded(self._log))

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        given = {"DATA_DIR": str(settings.data_dir)}
        if "port" not in settings.model_fields_set and not _is_free(settings.host, settings.port):
            given["PORT"] = str(_free_port(settings.host))
        named = {f"{ENV_PREFIX}{name}": value for name, value in given.items()}
        return {**os.environ, **named, **self._lifeline.environment}

    async def _give_up(self) -> None:
        if self._child is None:
            await self.client.require_ready()  # says why
        else:
            raise ServiceUnavailable(
                f"the service was not ready after {READY_SECONDS:.0f} s: {self._last_words()}"
            )

    def _last_words(self) -> str:
        try:
            written = self._log.read_bytes()[self._log_start :]
        except OSError:
            written = b""
        said = [line.strip() for line in written.decode(errors="replace").splitlines() if line.strip()]
        return said[-1].removeprefix("crawlscope: ") if said else f"see {self._log}"

    # ------------------------------------------------------------------ stopping

    async def _stop(self) -> None:
        if self._log_watch is not None:
            self._log_watch.cancel()
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            await asyncio.to_thread(self._child.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            await asyncio.to_thread(self._child.wait)


def _is_free(host: str, port: int) -> bool:
    try:
        _bound_port(host, port)
    except OSError:
        return False
    return True


def _free_port(host: str) -> int:
    """Chosen here and not by the service, which is to come back at the same one when it restarts."""
    return _bound_port(host, 0)


def _bound_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        bound: int = probe.getsockname()[1]
        return bound


async def _keep_bounded(log: Path) -> None:
    while True:
        await asyncio.sleep(LOG_CHECK_SECONDS)
        with suppress(OSError):
            _bound(log)


def _bound(log: Path) -> None:
    """Its writers append, so that they go on at the new end."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        os.truncate(log, 0)
