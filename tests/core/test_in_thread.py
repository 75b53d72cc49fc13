"""A cancelled caller waits for its thread."""

import asyncio
import threading

import pytest

from crawlscope.core.in_thread import in_thread
from crawlscope.pages.index_page import in_time
from crawlscope.pages.retry import PageTimeout


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
