"""Work in a thread, which nothing can cancel."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import ParamSpec, TypeVar

from crawlscope.core.vocabulary import OperationType
from crawlscope.timing import TimingContext

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 200_000
"""More characters than most pages have; these take about 50 ms."""


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Waits for the thread even if the caller is cancelled.

    Abandoned threads would go on unseen and take the places of later work, until none is left.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


class Lanes:
    """Computes in threads: one piece of large work and one of other work at a time.

    Threads that compute at the same time only take the interpreter from each other and from the event loop.
    """

    def __init__(self) -> None:
        self._lanes = asyncio.Lock(), asyncio.Lock()

    async def compute(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`size` is in characters. The wait for other work is measured, where there is one."""
        lane = self._lanes[size > LARGE]
        with (
            TimingContext(OperationType.CHUNKING_WAIT, "wait_for_thread") if lane.locked() else nullcontext()
        ):
            await lane.acquire()
        try:
            return await in_thread(work, *args, **kwargs)
        finally:
            lane.release()
