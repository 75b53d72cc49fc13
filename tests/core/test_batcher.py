"""Batches form by what is there, and no member of a batch harms another."""

import asyncio
from collections.abc import Sequence

import pytest

from crawlscope.core.batcher import Batcher
from crawlscope.core.errors import DatabaseUnavailable


class Recorder:
    """Doubles numbers, keeps the batches it got, and waits at the gate before each answer."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def double(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.error and (len(items) > 1 or items[0] == 13):
            raise self.error
        return [ValueError("odd") if item == 7 else item * 2 for item in items]


async def test_items_that_arrive_during_a_batch_share_the_next_one() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.double, max_items=3)
    first = asyncio.create_task(batcher.add(1))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(batcher.add(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0.01)
    assert recorder.batches == [[1]]
    recorder.gate.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10]
    assert recorder.batches == [[1], [2, 3, 4], [5]]


async def test_callers_that_are_ready_at_once_share_the_first_batch() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.double, max_items=10)
    assert await asyncio.gather(*[batcher.add(number) for number in (1, 2, 3)]) == [2, 4, 6]
    assert recorder.batches == [[1, 2, 3]]


async def test_items_of_one_caller_come_back_in_order() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.double, max_items=2)
    several, none, one = await asyncio.gather(batcher.add_all([1, 2, 3]), batcher.add_all([]), batcher.add(4))
    assert (several, none, one) == ([2, 4, 6], [], 8)
    assert recorder.batches == [[1, 2], [3, 4]]


async def test_the_first_error_ends_a_call_and_drops_its_waiting_items() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.double, max_items=2)
    results = await asyncio.gather(
        batcher.add_all([1, 7, *range(20, 40)]), batcher.add_all([4, 5]), return_exceptions=True
    )
    assert [type(results[0]), results[1]] == [ValueError, [8, 10]]
    assert len(recorder.batches) <= 3


async def test_a_full_batcher_says_so() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.double, max_items=2, concurrency=2)
    callers = []
    for full in (False, False, True):
        assert batcher.is_full is full
        callers.append(asyncio.create_task(batcher.add_all([1, 2])))
        await asyncio.sleep(0.01)
    recorder.gate.set()
    await asyncio.gather(*callers)
    assert not batcher.is_full


async def test_batches_are_limited_by_weight_but_a_heavy_item_goes_alone() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.double, max_items=10, weight=lambda item: item, max_weight=10)
    await asyncio.gather(*[batcher.add(number) for number in (4, 6, 1, 50, 2)])
    assert recorder.batches == [[4, 6], [1], [50], [2]]


async def test_several_batches_may_be_in_progress() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.double, max_items=1, concurrency=2)
    adding = [asyncio.create_task(batcher.add(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0.01)
    assert recorder.batches == [[1], [2]]
    recorder.gate.set()
    assert await asyncio.gather(*adding) == [2, 4, 6]


async def test_an_exception_as_a_result_goes_to_its_caller_alone() -> None:
    batcher = Batcher(Recorder().double, max_items=10)
    results = await asyncio.gather(*[batcher.add(number) for number in (1, 7, 3)], return_exceptions=True)
    assert results[0::2] == [2, 6]
    assert isinstance(results[1], ValueError)


async def test_items_of_a_batch_that_failed_are_processed_alone() -> None:
    recorder = Recorder()
    recorder.error = RuntimeError("bad item")
    batcher = Batcher(recorder.double, max_items=10)
    results = await asyncio.gather(*[batcher.add(number) for number in (1, 13, 3)], return_exceptions=True)
    assert results[0::2] == [2, 6]
    assert results[1] is recorder.error
    assert recorder.batches == [[1, 13, 3], [1], [13], [3]]


async def test_an_unavailable_dependency_fails_the_batch_at_once() -> None:
    recorder = Recorder()
    recorder.error = DatabaseUnavailable("down")
    batcher = Batcher(recorder.double, max_items=10)
    results = await asyncio.gather(*[batcher.add(number) for number in (1, 2)], return_exceptions=True)
    assert results == [recorder.error, recorder.error]
    assert recorder.batches == [[1, 2]]


async def test_a_cancelled_caller_leaves_the_others_alone() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.double, max_items=1)
    in_progress, waiting, last = (asyncio.create_task(batcher.add(number)) for number in (1, 2, 3))
    await asyncio.sleep(0.01)
    in_progress.cancel()
    waiting.cancel()
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await last == 6
    assert recorder.batches == [[1], [3]]
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_outage_ends_the_processing_one_by_one() -> None:
    calls: list[int] = []

    async def process(items: Sequence[int]) -> list[int | Exception]:
        calls.append(len(items))
        raise ValueError("one is bad") if len(items) > 1 else DatabaseUnavailable("down")

    batcher = Batcher(process, max_items=64)
    ended = await asyncio.gather(*[batcher.add(number) for number in range(64)], return_exceptions=True)
    assert {type(each) for each in ended} == {DatabaseUnavailable}
    assert calls == [64, 1]


async def test_what_no_caller_waits_for_is_not_processed_one_by_one() -> None:
    recorder = Recorder()
    recorder.error = RuntimeError("bad item")
    with pytest.raises(RuntimeError):
        await Batcher(recorder.double, max_items=64).add_all([13, 1, 2, 3])
    await asyncio.sleep(0.01)
    assert recorder.batches == [[13, 1, 2, 3], [13]]


async def test_callers_of_a_cancelled_batch_are_cancelled() -> None:
    entered = asyncio.Event()

    async def process(items: Sequence[int]) -> list[int | Exception]:
        if len(items) > 1:
            raise ValueError("one is bad")
        entered.set()
        return await asyncio.Future[list[int | Exception]]()

    batcher = Batcher(process, max_items=64)
    before = asyncio.all_tasks()
    waiting = [asyncio.create_task(batcher.add(number)) for number in range(3)]
    await entered.wait()
    [running] = asyncio.all_tasks() - before - {*waiting}
    running.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in ended} == {asyncio.CancelledError}


async def test_a_wrong_number_of_results_is_an_error_of_each_caller() -> None:
    async def process(items: Sequence[int]) -> Sequence[int | Exception]:
        return items[:-1]

    batcher = Batcher(process, max_items=64)
    ended = await asyncio.gather(*[batcher.add(number) for number in range(3)], return_exceptions=True)
    assert {type(each) for each in ended} == {ValueError}
