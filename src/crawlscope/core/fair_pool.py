"""A thread pool that is fair to its callers: one with much work does not block one with little."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Any, TypeVar

from crawlscope.core.errors import EmbedderUnavailable

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
        self.done.set_running_or_notify_cancel()  # a thread sets it; cancelling the awaiting task does not


class FairThreadPool:
    """A thread takes one item at a time: from the caller with the fewest items in progress, and among equals
    from the one that has waited longest.

    `on_wait` gets the seconds for which each call has waited, in its context.
    """

    def __init__(self, threads: int, on_wait: Callable[[float], None]) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._threads = threads
        self._on_wait = on_wait
        self._lock = Lock()
        self._line: deque[_Caller] = deque()
        """Callers with waiting items."""
        self._serving = 0
        """Threads that run `_serve`; `_in_progress` of them have an item."""
        self._in_progress = 0
        self._counted_until = 0.0
        self._closed = False

    async def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Returns the results in the order of the items; the first error ends the call.

        The time in which no item is in progress because all threads work for others counts as a wait.
        """
        if not items:
            return []
        caller = _Caller(work, items)
        try:
            with self._lock:
                if self._closed:
                    raise EmbedderUnavailable("the embedder is closed")
                self._count_waits()
                self._line.append(caller)
                for _ in range(min(self._threads - self._serving, len(caller.waiting))):
                    self._pool.submit(self._serve)
                    self._serving += 1
            await asyncio.wrap_future(caller.done)
        finally:
            with self._lock:
                self._count_waits()
                self._end(caller)
            self._on_wait(caller.waited_seconds)
        return caller.results

    async def aclose(self) -> None:
        """Callers that still wait get `EmbedderUnavailable`."""
        with self._lock:
            self._closed = True
            for caller in list(self._line):
                self._end(caller, EmbedderUnavailable("the embedder was closed"))
        await asyncio.to_thread(self._pool.shutdown)

    def _serve(self) -> None:
        """A thread's loop until no caller has waiting items."""
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
        """To be called before each change: adds the time since the last one to the callers that waited."""
        now = perf_counter()
        if self._in_progress == self._threads:
            for caller in self._line:
                if not caller.in_progress:
                    caller.waited_seconds += now - self._counted_until
        self._counted_until = now
