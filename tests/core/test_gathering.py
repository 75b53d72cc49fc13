import asyncio

import pytest

from crawlscope.core.gathering import Gathering


class Callers:
    """Notes the order in which callers go on, and which of them together."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._tasks: list[asyncio.Task[None]] = []
        self.gone: list[int] = []

    async def come(self, number: int, patience_seconds: float = 60.0) -> None:
        async def wait() -> None:
            await self._gathering.wait(patience_seconds)
            self.gone.append(number)

        self._tasks.append(asyncio.create_task(wait()))
        await asyncio.sleep(0.01)

    async def all_gone(self) -> list[int]:
        async with asyncio.timeout(10):
            await asyncio.gather(*self._tasks)
        return sorted(self.gone)


async def test_callers_wait_for_enough_others_while_more_are_to_come() -> None:
    coming = 2
    callers = Callers(Gathering(3, lambda: coming > 0, 60.0))
    await callers.come(1)
    await callers.come(2)
    assert callers.gone == []
    await callers.come(3)
    assert await callers.all_gone() == [1, 2, 3]
    await callers.come(4)
    coming = 0
    await callers.come(5)
    assert await callers.all_gone() == [1, 2, 3, 4, 5]


async def test_they_go_on_when_one_that_was_to_come_does_not() -> None:
    coming = 1
    gathering = Gathering(3, lambda: coming > 0, 60.0)
    callers = Callers(gathering)
    await callers.come(1)
    coming = 0
    gathering.look()
    assert await callers.all_gone() == [1]


@pytest.mark.parametrize(("pause_seconds", "patience_seconds"), [(0.05, 0.0), (0.0, 0.05)])
async def test_they_wait_for_the_pause_and_for_the_patience_of_one(
    pause_seconds: float, patience_seconds: float
) -> None:
    callers = Callers(Gathering(9, lambda: True, pause_seconds))
    await callers.come(1)
    await callers.come(2, patience_seconds)
    assert callers.gone == []
    if patience_seconds:
        assert await callers.all_gone() == [1, 2]
    else:
        await asyncio.sleep(0.02)
        await callers.come(3)  # lets them wait anew
        await asyncio.sleep(0.03)
        assert callers.gone == []
        assert await callers.all_gone() == [1, 2, 3]


async def test_one_that_is_cancelled_waits_no_more() -> None:
    gathering = Gathering(2, lambda: True, 60.0)
    cancelled = asyncio.create_task(gathering.wait(60.0))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    callers = Callers(gathering)
    await callers.come(1)
    assert callers.gone == []
    await callers.come(2)
    assert await callers.all_gone() == [1, 2]
