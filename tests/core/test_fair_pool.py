"""Callers share threads fairly, and their waits for each other are measured."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.core.fair_pool import FairThreadPool
from crawlscope.timing import TimingContext, note_wait, scope, waits_apart

LIMIT_SECONDS = 30


@pytest.fixture
async def one_thread() -> AsyncIterator[FairThreadPool]:
    turns = FairThreadPool(1, note_wait)
    yield turns
    await turns.aclose()


class Log:
    """Records the items in the order of their work; those in `held` wait until they are released."""

    def __init__(self, *held: str) -> None:
        self.began: list[str] = []
        self._held = {item: threading.Event() for item in held}

    def work(self, item: str) -> str:
        self.began.append(item)
        if item in self._held:
            assert self._held[item].wait(LIMIT_SECONDS)
        return item.upper()

    def release(self, *items: str) -> None:
        for item in items:
            self._held[item].set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - set by other threads
                await asyncio.sleep(0.005)


def page(name: str, items: int) -> list[str]:
    return [f"{name}{number}" for number in range(items)]


def start(turns: FairThreadPool, log: Log, items: list[str]) -> asyncio.Task[list[str]]:
    return asyncio.create_task(turns.map(log.work, items))


async def test_a_small_page_does_not_wait_for_a_giant_one(one_thread: FairThreadPool) -> None:
    log = Log("giant0")
    giant = start(one_thread, log, page("giant", 2_700))
    await log.until(lambda: log.began == ["giant0"])
    small = start(one_thread, log, page("small", 3))
    await asyncio.sleep(0)
    log.release("giant0")
    assert await small == ["SMALL0", "SMALL1", "SMALL2"]
    assert log.began[:7] == ["giant0", "giant1", "small0", "giant2", "small1", "giant3", "small2"]
    assert await giant == [item.upper() for item in page("giant", 2_700)]


async def test_the_pages_share_the_threads_evenly() -> None:
    turns = FairThreadPool(4, note_wait)
    held = [*page("a", 4), *page("b", 2)]
    log = Log(*held)
    first = start(turns, log, page("a", 20))
    await log.until(lambda: len(log.began) == 4)
    second = start(turns, log, page("b", 20))
    await asyncio.sleep(0)
    log.release("a0", "a1")
    await log.until(lambda: len(log.began) == 6)
    assert sorted(log.began[4:]) == ["b0", "b1"]
    log.release("a2", "a3", "b0", "b1")
    assert await first == [item.upper() for item in page("a", 20)]
    assert await second == [item.upper() for item in page("b", 20)]
    await turns.aclose()


async def test_no_items_take_no_thread(one_thread: FairThreadPool) -> None:
    assert await one_thread.map(Log().work, []) == []


async def test_each_caller_gets_its_own_results() -> None:
    turns = FairThreadPool(3, note_wait)
    log = Log()
    pages = [page(f"{name}-", name % 7 * 5) for name in range(40)]
    answers = await asyncio.gather(*(turns.map(log.work, each) for each in pages))
    assert answers == [[item.upper() for item in each] for each in pages]
    assert sorted(log.began) == sorted(item for each in pages for item in each)
    await turns.aclose()


async def test_an_error_ends_its_own_page_only(one_thread: FairThreadPool) -> None:
    log = Log("good0")

    def work(item: str) -> str:
        if item == "bad1":
            raise ValueError(item)
        return log.work(item)

    good = asyncio.create_task(one_thread.map(work, page("good", 10)))
    bad = asyncio.create_task(one_thread.map(work, page("bad", 10)))
    await log.until(lambda: log.began == ["good0"])
    log.release("good0")
    with pytest.raises(ValueError, match="bad1"):
        await bad
    assert len(await good) == 10
    assert [item for item in log.began if item.startswith("bad")] == ["bad0"]


async def test_a_cancelled_page_gets_no_further_thread(one_thread: FairThreadPool) -> None:
    log = Log("kept0")
    kept = start(one_thread, log, page("kept", 5))
    await log.until(lambda: log.began == ["kept0"])
    dropped = start(one_thread, log, page("dropped", 5))
    await asyncio.sleep(0)
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    log.release("kept0")
    assert len(await kept) == 5
    assert log.began == page("kept", 5)


async def test_a_caller_that_waits_for_a_closed_pool_gets_an_error(one_thread: FairThreadPool) -> None:
    log = Log("first0")
    first = start(one_thread, log, ["first0"])
    await log.until(lambda: log.began == ["first0"])
    waiting = start(one_thread, log, ["waiting0"])
    await asyncio.sleep(0)
    closing = asyncio.create_task(one_thread.aclose())
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await waiting
    log.release("first0")
    assert await first == ["FIRST0"]
    await closing
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await one_thread.map(log.work, ["late"])
    assert log.began == ["first0"]


async def measured(
    turns: FairThreadPool, log: Log, items: list[str], found: list[TimingContext] | None = None
) -> dict[str, TimingContext]:
    """The measured durations by type; `found` gets them in order."""
    found = [] if found is None else found
    with (
        scope(collect=found.append),
        TimingContext("work", "items") as whole,
        waits_apart(whole, "wait", "for_a_turn"),
    ):
        await turns.map(log.work, items)
    return {each.operation_type: each for each in found}


async def test_the_wait_for_another_page_is_measured_separately(one_thread: FairThreadPool) -> None:
    log = Log("first0", "second0")
    first = asyncio.create_task(measured(one_thread, log, ["first0"]))
    await log.until(lambda: log.began == ["first0"])
    second = asyncio.create_task(measured(one_thread, log, ["second0"]))
    await asyncio.sleep(0.1)
    log.release("first0")
    await log.until(lambda: "second0" in log.began)
    log.release("second0")
    assert set(await first) == {"work"}
    operations = await second
    assert set(operations) == {"work", "wait"}
    assert operations["wait"].duration_ms > 0
    assert operations["wait"].timestamp == operations["work"].timestamp


async def test_a_page_that_is_alone_never_waits() -> None:
    for threads in (1, 2):
        turns = FairThreadPool(threads, note_wait)
        assert set(await measured(turns, Log(), page("alone", 50))) == {"work"}
        await turns.aclose()


async def test_the_wait_of_a_cancelled_page_is_measured_too(one_thread: FairThreadPool) -> None:
    log = Log("first0")
    first = start(one_thread, log, ["first0"])
    await log.until(lambda: log.began == ["first0"])
    found: list[TimingContext] = []
    second = asyncio.create_task(measured(one_thread, log, ["second0"], found))
    await asyncio.sleep(0.05)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    log.release("first0")
    await first
    waited, worked = found
    assert (waited.operation_type, worked.operation_type) == ("wait", "work")
    assert worked.success is False
