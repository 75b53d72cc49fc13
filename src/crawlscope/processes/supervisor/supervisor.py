"""Keeps a handful of processes alive: starts them in order, restarts what dies, stops them in reverse."""

import asyncio
import collections
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from crawlscope.core.errors import GaveUp
from crawlscope.processes.supervisor.lifeline import Lifeline

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A process that lived so long did not die of its start: the pauses begin anew."""
START_ATTEMPTS = 3
MANY_FAILURES = 5
WRONG_SETTINGS = 2
"""The exit code that trying again does not change, at the start. Later the settings have worked, and it is
what they name that answers otherwise."""
READY_POLL_SECONDS = 0.05
WATCH_SECONDS = 1.0
STDERR_LINES = 20
LONGEST_LINE_BYTES = 64 * 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Process:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    """The whole environment; None: the supervisor's own."""
    ready: Callable[[], Awaitable[bool]] | None = None
    """Asked until it says yes. Processes after this one need it: they start later and are stopped sooner."""
    ready_timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Exit:
    """The end of one process."""

    name: str
    pid: int
    code: int
    """What it returned; negative: the signal."""
    began_at: datetime
    ended_at: datetime
    asked_for: bool
    """Whether the supervisor is stopping."""

    @property
    def how(self) -> str:
        return _how(self.code)


@dataclass
class _Life:
    """What is known of one process across its restarts."""

    process: Process
    child: asyncio.subprocess.Process | None = None
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    was_steady: bool = False
    said: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=STDERR_LINES))
    keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child is not None and self.child.returncode is None else None

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_with_descendants(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_words(self) -> str:
        words = next((line for line in reversed(self.said) if line.strip()), "it said nothing")
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
        """`watch` is called each second, from the start on; an error in it is logged. `on_exit` hears of
        every process that ends."""
        self._lives = {process.name: _Life(process) for process in processes}
        self._watch = watch
        self._on_exit = on_exit
        self._grace_seconds = grace_seconds
        self._lifeline = Lifeline()
        self._watching: list[asyncio.Task[None]] = []
        self._stop_asked = asyncio.Event()
        self._stop_turn = asyncio.Lock()
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def pid(self, name: str) -> int | None:
        return self._lives[name].pid

    async def start(self) -> None:
        """Returns when all run, those with `ready` being ready. Raises `GaveUp`, with everything stopped."""
        self._watching = [asyncio.create_task(_call_each_second(callback)) for callback in self._watch]
        for life in self._lives.values():
            life.keeping = asyncio.create_task(self._keep(life))
            life.keeping.add_done_callback(self._note_own_error)
            await self._until(life.was_ready)

    async def wait(self) -> None:
        """Ends only by raising `GaveUp`, with everything stopped."""
        await self._until(asyncio.Event())

    async def stop(self) -> None:
        """SIGTERM in reverse order of start, SIGKILL after the grace. What others need goes after them."""
        self._stop_asked.set()
        async with self._stop_turn:
            for task in self._watching:
                task.cancel()
            for stage in self._stages():
                await self._stop_together(stage)
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
            raise GaveUp(self._given_up.result())

    # ------------------------------------------------------------------ keeping one alive

    async def _keep(self, life: _Life) -> None:
        while not self._stop_asked.is_set():
            started = time.monotonic()
            try:
                code = await self._live_once(life)
            except OSError as error:
                self._give_up(f"{life.process.name} cannot be started: {error}")
                return
            if not self._stop_asked.is_set():
                await self._after_death(life, code, time.monotonic() - started)

    async def _live_once(self, life: _Life) -> int:
        """From start to end of one child; its return code."""
        began_at = datetime.now(UTC)
        async with self._relayed_stderr(life) as stderr:
            life.child = child = await self._spawn(life.process, stderr)
            if self._stop_asked.is_set():  # while it was being started
                life.signal(signal.SIGTERM)
            readying = asyncio.create_task(self._await_ready(life))
            readying.add_done_callback(self._note_own_error)
            try:
                code = await child.wait()
            finally:
                readying.cancel()
            ended_at = datetime.now(UTC)
        self._report_exit(
            Exit(life.process.name, child.pid, code, began_at, ended_at, self._stop_asked.is_set())
        )
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

    async def _await_ready(self, life: _Life) -> None:
        """Ends a child that does not get ready in time."""
        deadline = time.monotonic() + life.process.ready_timeout_seconds
        while life.process.ready is not None and not life.was_ready.is_set():
            if await life.process.ready():
                break
            if time.monotonic() >= deadline:
                life.said.append(f"it was not ready after {life.process.ready_timeout_seconds:g} seconds")
                life.kill_with_descendants()
                return
            await asyncio.sleep(READY_POLL_SECONDS)
        life.was_ready.set()

    def _report_exit(self, end: Exit) -> None:
        report = log.info if end.asked_for else log.warning
        report("process_ended", child=end.name, pid=end.pid, how=end.how)
        if self._on_exit is not None:
            self._on_exit(end)

    async def _after_death(self, life: _Life, code: int, lived_seconds: float) -> None:
        name = life.process.name
        life.was_steady = life.was_steady or lived_seconds > STEADY_SECONDS
        if code == WRONG_SETTINGS and not life.was_steady:
            self._give_up(f"{name}: {life.last_words()}")
        life.failures = 1 if lived_seconds > STEADY_SECONDS else life.failures + 1
        if not life.was_ready.is_set() and life.failures >= START_ATTEMPTS:
            how = f"failed {life.failures} times to start ({_how(code)})"
            self._give_up(f"{name} {how}: {life.last_words()}")
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(life.failures - 1, 10), LONGEST_PAUSE_SECONDS)
        if life.failures >= MANY_FAILURES:
            log.error("process_keeps_dying", child=name, times=life.failures, last_words=life.last_words())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), pause)

    def _give_up(self, reason: str) -> None:
        self._stop_asked.set()
        if not self._given_up.done():
            self._given_up.set_result(reason)

    def _note_own_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(f"supervision failed: {error!r}")

    # ------------------------------------------------------------------ what it says

    @contextlib.asynccontextmanager
    async def _relayed_stderr(self, life: _Life) -> AsyncIterator[int]:
        """The end of a pipe for the child. What comes out goes to our stderr, and the last of it is kept.

        Not asyncio's own pipe: a descendant that holds that open can keep the child's end from being seen.
        """
        reading, writing = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        relay = asyncio.create_task(_relay(reader, life.said))
        try:
            yield writing
            await asyncio.wait({relay}, timeout=1)
        finally:
            relay.cancel()
            transport.close()

    # ------------------------------------------------------------------ stopping

    def _stages(self) -> list[list[_Life]]:
        """What may be stopped together, in reverse order of start; what others need is a stage of its own."""
        stages: list[list[_Life]] = [[]]
        for life in reversed(self._lives.values()):
            if life.process.ready is None:
                stages[-1].append(life)
            else:
                stages += [[life], []]
        return stages

    async def _stop_together(self, stage: Sequence[_Life]) -> None:
        keeping = [life.keeping for life in stage if life.keeping is not None]
        if not keeping:
            return
        for life in stage:
            life.signal(signal.SIGTERM)
        await asyncio.wait(keeping, timeout=self._grace_seconds)
        for life in stage:
            if life.pid is not None:
                log.warning("process_killed", child=life.process.name, after_seconds=self._grace_seconds)
                life.kill_with_descendants()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _relay(reader: asyncio.StreamReader, said: collections.deque[str]) -> None:
    pending = b""
    while chunk := await reader.read(LONGEST_LINE_BYTES):
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > LONGEST_LINE_BYTES:
            lines, pending = [*lines, pending], b""
        _say(lines, said)
    if pending:
        _say([pending], said)


def _say(lines: Sequence[bytes], said: collections.deque[str]) -> None:
    decoded = [line.decode(errors="replace") for line in lines]
    said.extend(decoded)
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        sys.stderr.writelines(f"{line}\n" for line in decoded)
        sys.stderr.flush()


async def _call_each_second(callback: Callable[[], Awaitable[None]]) -> None:
    complaint = ""
    while True:
        try:
            await callback()
            complaint = ""
        except Exception as error:  # noqa: BLE001  # whatever is wrong with what is watched, the rest goes on
            if str(error) != complaint:
                complaint = str(error)
                log.warning("watch_failed", reason=complaint)
        await asyncio.sleep(WATCH_SECONDS)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
