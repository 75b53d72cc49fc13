"""A cancelled caller waits for its thread."""

import asyncio
import threading

import pytest

from crawlscope.indexing.in_thread import LARGE, Lanes, in_thread
from crawlscope.pages.index_page import in_time
from crawlscope.pages.retry import PageTimeout
from crawlscope.timing import TimingContext, scope
from tests.support.polling import eventually


async def test_an_attempt_that_times_out_ends_with_its_thread() -> None:
    release = threading.Event()

    async def try_it() -> None:
        async with in_time(0.02):
            await in_thread(release.wait, timeout=30)

    trying = asyncio.create_task(try_it())
    done, _ = await asyncio.wait([trying], timeout=0.3)
    assert not done
    release.set()
    with pytest.raises(PageTimeout, match=r"not done after 0\.02 s"):
        await trying


async def test_it_returns_and_raises_as_the_work_does() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


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
