"""Work in threads has lanes: large work delays no other."""

import asyncio
import threading

import pytest

from crawlscope.indexing.prepare import LARGE, Lanes
from crawlscope.timing import TimingContext, scope
from tests.support.polling import eventually


async def test_work_runs_alone_in_its_lane_and_large_work_delays_no_other() -> None:
    lanes, release, running = Lanes(), threading.Event(), list[str]()

    def work(name: str) -> None:
        running.append(name)
        release.wait(30)

    working = [
        asyncio.create_task(lanes.compute(size, work, name))
        for size, name in ((LARGE + 1, "large"), (LARGE, "small"), (LARGE + 2, "large"), (1, "small"))
    ]
    await eventually(lambda: len(running) >= 2)
    assert sorted(running) == ["large", "small"]
    working[2].cancel()
    release.set()
    await asyncio.gather(*working, return_exceptions=True)
    assert sorted(running) == ["large", "small", "small"]


async def test_a_lane_is_free_after_an_error() -> None:
    lanes = Lanes()
    with pytest.raises(ZeroDivisionError):
        await lanes.compute(1, divmod, 7, 0)
    assert await lanes.compute(1, divmod, 7, 2) == (3, 1)


async def test_a_wait_for_other_work_has_a_name() -> None:
    lanes, release, measured = Lanes(), threading.Event(), list[TimingContext]()
    with scope(collect=measured.append):
        first = asyncio.create_task(lanes.compute(1, release.wait, 30))
        second = asyncio.create_task(lanes.compute(1, divmod, 7, 2))
        await asyncio.sleep(0)
        release.set()
        assert await second == (3, 1)
        assert await first
    assert [each.operation_type for each in measured] == ["chunking_wait"]


async def test_small_work_is_done_in_the_event_loop_between_its_turns() -> None:
    lanes, turns, measured = Lanes(inline=10), 0, list[TimingContext]()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    with scope(collect=measured.append):
        small = [lanes.compute(10, lambda: (threading.get_ident(), turns)) for _ in range(3)]
        threads, at = zip(*await asyncio.gather(*small), strict=True)
    counting.cancel()
    assert {*threads} == {threading.get_ident()}
    assert len({*at}) == 3, "one in each turn"
    assert [each.operation_type for each in measured] == ["chunking_wait"] * 2
    assert await lanes.compute(11, threading.get_ident) != threading.get_ident()
