"""Keeps a handful of processes alive: starts them in order, restarts what dies, stops them in reverse."""

import asyncio
import collections
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import structlog

from crawlscope.core.data_dir import shard_folders
from crawlscope.core.errors import GaveUp, SettingsError
from crawlscope.core.periodic import run_periodically
from crawlscope.core.restarts import Restarts
from crawlscope.processes.supervisor.lifeline import Lifeline
from crawlscope.processes.supervisor.stderr import relayed_stderr

CRAWLSCOPE = (sys.executable, "-P", "-m", "crawlscope")
"""`-P`: a file of the current folder may have the name of a module."""
START_ATTEMPTS = 3
MANY_FAILURES = 5
READY_POLL_INTERVAL_SECONDS = 0.05
WATCH_INTERVAL_SECONDS = 2.0
STDERR_LINES = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Process:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    """The whole environment; None: the supervisor's own."""
    ready: Callable[[], Awaitable[bool]] | None = None
    """It is called until it returns true. Processes after this one need it: they start later and are stopped
    sooner."""
    ready_timeout_seconds: float = 60.0


def index_processes(data_dir: Path, command: Sequence[str], env: Mapping[str, str]) -> list[Process]:
    """One for each shard of the embedded index."""
    shards = range(2, 1 + len(shard_folders(data_dir)))
    others = [Process(f"index-{shard}", (*command, "--shard", str(shard)), env) for shard in shards]
    return [Process("index", command, env), *others]


@dataclass(frozen=True)
class Exit:
    """The end of one process."""

    name: str
    pid: int
    code: int
    """The exit code; negative: the signal."""
    began_at: datetime
    ended_at: datetime
    asked_for: bool
    """Whether the supervisor is stopping."""

    @property
    def how(self) -> str:
        return _how(self.code)


@dataclass
class _Child:
    """One process across its restarts."""

    process: Process
    running: asyncio.subprocess.Process | None = None
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)
    restarts: Restarts = field(default_factory=Restarts)
    stderr_lines: collections.deque[str] = field(
        default_factory=lambda: collections.deque(maxlen=STDERR_LINES)
    )
    task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.running.pid if self.running and self.running.returncode is None else None

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_with_descendants(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_line(self) -> str:
        words = next((line for line in reversed(self.stderr_lines) if line.strip()), "it said nothing")
        return words.strip().removeprefix("crawlscope: ")


class Supervisor:
    """`start`, then `wait` until it gives up or is cancelled; then, in any case, `stop`.

    Make it inside a running event loop. Each child gets a session of its own: Ctrl-C reaches the supervisor
    alone, which then stops them in order.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        watch: Sequence[Callable[[], Awaitable[None]]] = (),
        on_exit: Callable[[Exit], None] | None = None,
        grace_seconds: float = 15.0,
    ) -> None:
        """`watch` is called every two seconds, from the start on, and when a process has ended; an error in
        it is logged. `on_exit` is called for every process that ended.
        """
        self._children = {process.name: _Child(process) for process in processes}
        self._watch = [(callback, asyncio.Event()) for callback in watch]
        """With the event of a process that ended."""
        self._on_exit = on_exit
        self._grace_seconds = grace_seconds
        self._lifeline = Lifeline()
        self._watching: list[asyncio.Task[NoReturn]] = []
        self._stop_asked = asyncio.Event()
        self._stop_turn = asyncio.Lock()
        self._given_up: asyncio.Future[GaveUp] = asyncio.get_running_loop().create_future()

    def pid(self, name: str) -> int | None:
        return self._children[name].pid

    async def start(self) -> None:
        """Returns when all run, those with `ready` being ready. Raises `GaveUp`, with everything stopped."""
        self._watching = [
            asyncio.create_task(
                run_periodically(
                    callback,
                    interval_seconds=WATCH_INTERVAL_SECONDS,
                    retry_seconds=WATCH_INTERVAL_SECONDS,
                    failure_event="watch_failed",
                    news=ended,
                )
            )
            for callback, ended in self._watch
        ]
        for child in self._children.values():
            child.task = asyncio.create_task(self._supervise(child))
            child.task.add_done_callback(self._note_own_error)
            await self._until(child.was_ready)

    async def wait(self) -> None:
        """Ends only by raising `GaveUp`, with everything stopped."""
        await self._until(asyncio.Event())

    async def stop(self) -> None:
        """Sends SIGTERM in reverse order of start, and SIGKILL after the grace. A process that others need
        ends after them."""
        self._stop_asked.set()
        async with self._stop_turn:
            for task in self._watching:
                task.cancel()
            together: list[_Child] = []
            for child in reversed(self._children.values()):
                if child.process.ready is None:
                    together.append(child)
                else:
                    await self._stop_together(together)
                    await self._stop_together([child])
                    together = []
            await self._stop_together(together)
            await asyncio.gather(*self._watching, return_exceptions=True)
            self._lifeline.close()

    async def _until(self, event: asyncio.Event) -> None:
        happened = asyncio.create_task(event.wait())
        ends: set[asyncio.Future[Any]] = {happened, self._given_up}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happened.cancel()
        if self._given_up.done():
            await self.stop()
            raise self._given_up.result()

    async def _supervise(self, child: _Child) -> None:
        while not self._stop_asked.is_set():
            started = time.monotonic()
            try:
                code = await self._run_once(child)
            except OSError as error:
                self._give_up(f"{child.process.name} cannot be started: {error}")
                return
            if not self._stop_asked.is_set():
                delay = self._count_end(child, code, time.monotonic() - started)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop_asked.wait(), delay)

    async def _run_once(self, child: _Child) -> int:
        """From start to end of one child; its return code."""
        began_at = datetime.now(UTC)
        async with relayed_stderr(child.stderr_lines) as stderr:
            child.running = running = await self._spawn(child.process, stderr)
            if self._stop_asked.is_set():  # while it was being started
                child.signal(signal.SIGTERM)
            readying = asyncio.create_task(self._await_ready(child))
            readying.add_done_callback(self._note_own_error)
            try:
                code = await running.wait()
            finally:
                readying.cancel()
            ended_at = datetime.now(UTC)
        end = Exit(child.process.name, running.pid, code, began_at, ended_at, self._stop_asked.is_set())
        report = log.info if end.asked_for else log.warning
        report("process_ended", child=end.name, pid=end.pid, how=end.how)
        if self._on_exit is not None:
            self._on_exit(end)
        for _, ended in self._watch:
            ended.set()
        return code

    async def _spawn(self, process: Process, stderr: int) -> asyncio.subprocess.Process:
        inherited = os.environ if process.env is None else process.env
        try:
            child = await asyncio.create_subprocess_exec(
                *process.argv,
                env={**inherited, **self._lifeline.environment},
                pass_fds=self._lifeline.descriptors,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        finally:
            os.close(stderr)
        log.info("process_started", child=process.name, pid=child.pid)
        return child

    async def _await_ready(self, child: _Child) -> None:
        """Ends a child that does not get ready in time."""
        deadline = time.monotonic() + child.process.ready_timeout_seconds
        while child.process.ready is not None and not child.was_ready.is_set():
            if await child.process.ready():
                break
            if time.monotonic() >= deadline:
                child.stderr_lines.append(
                    f"it was not ready after {child.process.ready_timeout_seconds:g} seconds"
                )
                child.kill_with_descendants()
                return
            await asyncio.sleep(READY_POLL_INTERVAL_SECONDS)
        child.was_ready.set()

    def _count_end(self, child: _Child, code: int, lived_seconds: float) -> float:
        """Gives up where a restart cannot help; returns the seconds until the next start."""
        name, restarts = child.process.name, child.restarts
        # A process that was never ready has not worked yet, however long its start took.
        delay = restarts.delay_after(lived_seconds if child.was_ready.is_set() else 0.0)
        # Once a process was steady its settings have worked: what they name answers otherwise now.
        if code == SettingsError.exit_code and not restarts.was_steady:
            self._give_up(f"{name}: {child.last_line()}", code)
        if not child.was_ready.is_set() and restarts.failures >= START_ATTEMPTS:
            how = f"failed {restarts.failures} times to start ({_how(code)})"
            self._give_up(f"{name} {how}: {child.last_line()}")
        if restarts.failures >= MANY_FAILURES:
            log.error(
                "process_crashed_repeatedly",
                child=name,
                times=restarts.failures,
                last_words=child.last_line(),
            )
        return delay

    def _give_up(self, reason: str, exit_code: int = GaveUp.exit_code) -> None:
        self._stop_asked.set()
        if not self._given_up.done():
            self._given_up.set_result(GaveUp(reason, exit_code))

    def _note_own_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(f"supervision failed: {error!r}")

    async def _stop_together(self, stage: Sequence[_Child]) -> None:
        tasks = [child.task for child in stage if child.task is not None]
        if not tasks:
            return
        for child in stage:
            child.signal(signal.SIGTERM)
        await asyncio.wait(tasks, timeout=self._grace_seconds)
        for child in stage:
            if child.pid is not None:
                log.warning("process_killed", child=child.process.name, after_seconds=self._grace_seconds)
                child.kill_with_descendants()
        await asyncio.gather(*tasks, return_exceptions=True)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
