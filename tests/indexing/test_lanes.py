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
