"""Work of concurrent callers in batches: what arrives while a batch is in progress shares the next one."""

import asyncio
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any, Generic, NamedTuple, TypeVar

from crawlscope.core.errors import DependencyError

Item = TypeVar("Item")
Result = TypeVar("Result")


def _one(_: object) -> int:
    return 1


class _Call(Generic[Item, Result]):
    def __init__(
        self, items: Sequence[Item], weight: Callable[[Item], int], done: asyncio.Future[list[Result]]
    ) -> None:
        self.items = items
        self.done = done
        self.taken = 0
        """So many items do not wait any more."""
        self.weights = [*accumulate(map(weight, items), initial=0)]
        """The weight of the items before each place."""
        self._results: list[Any] = [None] * len(items)
        self._missing = len(items)

    def end_items(self, place: int, outcomes: Sequence[Result | Exception]) -> None:
        if self.done.done():
            return
        if error := next((each for each in outcomes if isinstance(each, Exception)), None):
            self.done.set_exception(error)
            return
        self._results[place : place + len(outcomes)] = outcomes
        self._missing -= len(outcomes)
        if not self._missing:
            self.done.set_result(self._results)


class _Part(NamedTuple, Generic[Item, Result]):
    """The items of a call from `start` to `end`."""

    call: _Call[Item, Result]
    start: int
    end: int

    @property
    def items(self) -> Sequence[Item]:
        return self.call.items[self.start : self.end]


class Batcher(Generic[Item, Result]):
    """A lone item is a batch of its own, at once.

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
        max_weight: float = math.inf,
        concurrency: int = 1,
    ) -> None:
        self._process = process
        self._max_items = max_items
        self._weight = weight
        self._max_weight = max_weight
        self._concurrency = concurrency
        self._waiting: deque[_Call[Item, Result]] = deque()
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
        call = _Call[Item, Result](items, self._weight, loop.create_future())
        self._waiting.append(call)
        loop.call_soon(self._start)  # after the callers that are ready now have added theirs
        return await call.done

    def _start(self) -> None:
        while len(self._in_progress) < self._concurrency and (batch := self._next()):
            running = asyncio.create_task(self._run(batch))
            self._in_progress.add(running)
            running.add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: Sequence[_Part[Item, Result]], running: asyncio.Task[Exception | None]) -> None:
        self._in_progress.discard(running)
        if running.cancelled() or running.exception():
            for part in batch:
                part.call.done.cancel()
        self._start()

    def _next(self) -> list[_Part[Item, Result]]:
        batch: list[_Part[Item, Result]] = []
        room, weight = self._max_items, self._max_weight
        while self._waiting and room:
            call = self._waiting[0]
            if call.done.done():  # another of its items failed, or its caller was cancelled
                self._waiting.popleft()
                continue
            start, last = call.taken, min(call.taken + room, len(call.items))
            end = bisect_right(call.weights, call.weights[start] + weight, start + 1, last + 1) - 1
            if end == start and batch:
                break
            end = max(end, start + 1)
            batch.append(_Part(call, start, end))
            room -= end - start
            weight -= call.weights[end] - call.weights[start]
            call.taken = end
            if end == len(call.items):
                self._waiting.popleft()
        return batch

    async def _run(self, batch: Sequence[_Part[Item, Result]]) -> Exception | None:
        """Returns what the batch failed with."""
        items = [*chain.from_iterable(part.items for part in batch)]
        try:
            outcomes = [each for each, _ in zip(await self._process(items), items, strict=True)]
        except Exception as error:  # noqa: BLE001 - the callers'
            if len(items) > 1 and not isinstance(error, DependencyError):
                return await self._run_alone(batch)
            for part in batch:
                part.call.end_items(part.start, [error])
            return error
        ended = 0
        for call, start, end in batch:
            call.end_items(start, outcomes[ended : (ended := ended + end - start)])
        return None

    async def _run_alone(self, batch: Sequence[_Part[Item, Result]]) -> Exception | None:
        """Each item that a caller still waits for, until a dependency is unavailable for all."""
        error = None
        for call, start, end in batch:
            for place in range(start, end):
                if isinstance(error, DependencyError):
                    call.end_items(place, [error])
                elif not call.done.done():
                    error = await self._run([_Part(call, place, place + 1)])
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
