"""Threads that serve several callers in turns, so that one with much work does not block one with little."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Any, TypeVar

from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.timing import note_wait

T = TypeVar("T")
R = TypeVar("R")


class _Caller:
    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.work = work
        self.waiting = deque(enumerate(items))
        self.results: list[Any] = [None] * len(items)
        self.in_progress = 0
        self.waited_seconds = 0.0
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()  # from now on it is set by a thread only


class Turns:
    """A thread takes one item at a time: of the caller with the fewest in progress, and among equals of the
    one whose last turn is longest ago."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._threads = threads
        self._lock = Lock()
        self._line: deque[_Caller] = deque()
        """Callers with items that wait."""
        self._serving = 0
        """Threads that are to look for items, of which `_in_progress` have one."""
        self._in_progress = 0
        self._counted_until = 0.0
        self._closed = False

    async def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results in the order of the items; the first error ends all.

        The time in which items wait, none is in progress and all threads work for others is noted as a wait.
        """
        if not items:
            return []
        caller = _Caller(work, items)
        try:
            self._join(caller)
            await asyncio.wrap_future(caller.done)
        finally:
            self._leave(caller)
            note_wait(caller.waited_seconds)
        return caller.results

    async def aclose(self) -> None:
        """Whoever still waits gets `EmbedderUnavailable`."""
        with self._lock:
            self._closed = True
            for caller in list(self._line):
                self._end(caller, EmbedderUnavailable("the embedder was closed"))
        await asyncio.to_thread(self._pool.shutdown)

    def _join(self, caller: _Caller) -> None:
        with self._lock:
            if self._closed:
                raise EmbedderUnavailable("the embedder is closed")
            self._count_waits()
            self._line.append(caller)
            for _ in range(min(self._threads - self._serving, len(caller.waiting))):
                self._pool.submit(self._serve)
                self._serving += 1

    def _leave(self, caller: _Caller) -> None:
        with self._lock:
            self._count_waits()
            self._end(caller)

    def _serve(self) -> None:
        """A thread's work until nobody waits."""
        served: _Caller | None = None
        while taken := self._next(served):
            served, (number, item) = taken
            try:
                served.results[number] = served.work(item)
            except BaseException as error:  # noqa: BLE001 - the caller's
                with self._lock:
                    self._end(served, error)

    def _next(self, served: _Caller | None) -> tuple[_Caller, tuple[int, Any]] | None:
        with self._lock:
            self._count_waits()
            if served:
                self._in_progress -= 1
                served.in_progress -= 1
                if not served.waiting and not served.in_progress:
                    self._end(served)
            if not self._line:
                self._serving -= 1
                return None
            caller = min(self._line, key=lambda each: each.in_progress)
            self._line.remove(caller)
            item = caller.waiting.popleft()
            if caller.waiting:
                self._line.append(caller)
            self._in_progress += 1
            caller.in_progress += 1
            return caller, item

    def _end(self, caller: _Caller, error: BaseException | None = None) -> None:
        caller.waiting.clear()
        if caller in self._line:
            self._line.remove(caller)
        if caller.done.done():
            return
        if error:
            caller.done.set_exception(error)
        else:
            caller.done.set_result(None)

    def _count_waits(self) -> None:
        """Before anything changes: who has waited since the last change."""
        now = perf_counter()
        if self._in_progress == self._threads:
            for caller in self._line:
                if not caller.in_progress:
                    caller.waited_seconds += now - self._counted_until
        self._counted_until = now
