"""Work of concurrent callers in batches: what arrives while a batch is in progress shares the next one."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from crawlscope.core.errors import DependencyError

Item = TypeVar("Item")
Result = TypeVar("Result")


def _one(_: object) -> int:
    return 1


def _no_more() -> bool:
    return False


class _Call(Generic[Result]):
    def __init__(self, items: int, done: asyncio.Future[list[Result]]) -> None:
        self.done = done
        self._results: list[Any] = [None] * items
        self._missing = items

    def end_item(self, place: int, outcome: Result | Exception) -> None:
        if self.done.done():
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
            return
        self._results[place] = outcome
        self._missing -= 1
        if not self._missing:
            self.done.set_result(self._results)


class Batcher(Generic[Item, Result]):
    """A batch that may start waits until it has `enough` items, for `linger_seconds` after the last one at
    most, and only while `more_to_come`. So a lone item is a batch of its own, at once.

    `process` returns a result, or an exception for its caller, for each item in order. If it raises, it gets
    each item of the batch alone, so that one bad item does not fail the others; a `DependencyError` goes to
    all callers instead, because alone they would fail too. A batch has at most `max_items` and, unless it is
    a single item, at most `max_weight`; at most `concurrency` batches are in progress.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_items: int,
        weight: Callable[[Item], int] = _one,
        max_weight: int | None = None,
        concurrency: int = 1,
        enough: int = 1,
        more_to_come: Callable[[], bool] = _no_more,
        linger_seconds: float = 0.0,
    ) -> None:
        self._process = process
        self._max_items = max_items
        self._weight = weight
        self._max_weight = max_weight
        self._concurrency = concurrency
        self._enough = enough
        self._more_to_come = more_to_come
        self._linger_seconds = linger_seconds
        self._lingering: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Item, int, _Call[Result]]] = deque()
        """With the place of the item in its call."""
        self._in_progress: set[asyncio.Task[Exception | None]] = set()

    @property
    def is_full(self) -> bool:
        """An item that is added now waits for the end of a batch."""
        return len(self._in_progress) == self._concurrency

    async def add(self, item: Item) -> Result:
        """The item's result. A caller that is cancelled does not stop the batch that has its item."""
        return (await self.add_all([item]))[0]

    async def add_all(self, items: Sequence[Item]) -> list[Result]:
        """The items' results. The first error ends the call and drops those of its items that still wait."""
        if not items:
            return []
        loop = asyncio.get_running_loop()
        call = _Call[Result](len(items), loop.create_future())
        self._waiting.extend((item, place, call) for place, item in enumerate(items))
        loop.call_soon(self._start)  # after the callers that are ready now have added theirs
        return await call.done

    def _start(self) -> None:
        if not 0 < len(self._waiting) < self._enough or not self._more_to_come():
            self._start_batches()
        elif not self.is_full:
            self._stop_lingering()
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_seconds, self._start_batches)

    def _start_batches(self) -> None:
        self._stop_lingering()
        while len(self._in_progress) < self._concurrency and (batch := self._next()):
            running = asyncio.create_task(self._run(batch))
            self._in_progress.add(running)
            running.add_done_callback(partial(self._finish, batch))

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _finish(
        self, batch: Sequence[tuple[Item, int, _Call[Result]]], running: asyncio.Task[Exception | None]
    ) -> None:
        self._in_progress.discard(running)
        if running.cancelled() or running.exception():
            for _, _, call in batch:
                call.done.cancel()
        self._start()

    def _next(self) -> list[tuple[Item, int, _Call[Result]]]:
        batch: list[tuple[Item, int, _Call[Result]]] = []
        total = 0
        while self._waiting and len(batch) < self._max_items:
            item, place, call = self._waiting[0]
            if not call.done.done():  # else another of its items failed, or its caller was cancelled
                total += self._weight(item)
                if batch and self._max_weight is not None and total > self._max_weight:
                    break
                batch.append((item, place, call))
            self._waiting.popleft()
        return batch

    async def _run(self, batch: list[tuple[Item, int, _Call[Result]]]) -> Exception | None:
        """Returns what the batch failed with."""
        try:
            outcomes = await self._process([item for item, _, _ in batch])
            ended = list(zip(batch, outcomes, strict=True))
        except Exception as error:  # noqa: BLE001 - the callers'
            if len(batch) > 1 and not isinstance(error, DependencyError):
                return await self._run_alone(batch)
            for _, place, call in batch:
                call.end_item(place, error)
            return error
        for (_, place, call), outcome in ended:
            call.end_item(place, outcome)
        return None

    async def _run_alone(self, batch: list[tuple[Item, int, _Call[Result]]]) -> Exception | None:
        """Each item that a caller still waits for, until a dependency is unavailable for all."""
        error = None
        for each in batch:
            _, place, call = each
            if isinstance(error, DependencyError):
                call.end_item(place, error)
            elif not call.done.done():
                error = await self._run([each])
        return error


class BatcherByKey(Generic[Item, Result]):
    """A batcher for each key that has callers."""

    def __init__(self, make: Callable[[], Batcher[Item, Result]]) -> None:
        self._make = make
        self._batchers: dict[str, Batcher[Item, Result]] = {}
        self._callers: Counter[str] = Counter()

    def __contains__(self, key: str) -> bool:
        return key in self._batchers

    async def add(self, key: str, item: Item) -> Result:
        self._callers[key] += 1
        try:
            return await self._batchers.setdefault(key, self._make()).add(item)
        finally:
            self._callers[key] -= 1
            if not self._callers[key]:
                del self._callers[key], self._batchers[key]
