import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.periodic import in_background, run_periodically


def calls_of(*outcomes: int | Exception) -> Callable[[], Awaitable[int]]:
    """Returns or raises one after the other, then cancels the caller."""
    left = list(outcomes)

    async def work() -> int:
        if not left:
            raise asyncio.CancelledError
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return work


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("crawlscope.core.periodic.asyncio.sleep", sleep)
    return waited


async def test_waits_as_the_outcome_and_the_failures_in_a_row_say(waits: list[float]) -> None:
    down = CrawlscopeError("down")
    with pytest.raises(asyncio.CancelledError):
        await run_periodically(
            calls_of(3, down, down, 5, down),
            interval_seconds=lambda outcome: outcome * 10.0,
            retry_seconds=float,
            failure_event="work_failed",
        )
    assert waits == [30.0, 1.0, 2.0, 50.0, 1.0]


async def test_logs_an_error_once_until_it_changes_or_passes(waits: list[float]) -> None:
    down, late = CrawlscopeError("down"), CrawlscopeError("late")
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await run_periodically(
            calls_of(down, down, late, 0, late, ValueError("broken")),
            interval_seconds=1.0,
            retry_seconds=2.0,
            failure_event="work_failed",
        )
    assert [(line["event"], line["log_level"], line["reason"]) for line in logs] == [
        ("work_failed", "warning", "down"),
        ("work_failed", "warning", "late"),
        ("work_failed", "warning", "late"),
        ("work_failed", "error", "broken"),
    ]
    assert waits == [2.0, 2.0, 2.0, 1.0, 2.0, 2.0]


async def test_news_end_the_interval_also_those_that_come_during_the_work() -> None:
    news, calls = asyncio.Event(), 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            news.set()
        if calls == 3:
            raise asyncio.CancelledError

    running = asyncio.create_task(
        run_periodically(
            work, interval_seconds=3_600.0, retry_seconds=0.0, failure_event="work_failed", news=news
        )
    )
    await asyncio.sleep(0)
    news.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)


async def test_cancellation_ends_it() -> None:
    called = asyncio.Event()

    async def work() -> None:
        called.set()

    running = asyncio.create_task(
        run_periodically(work, interval_seconds=3_600.0, retry_seconds=0.0, failure_event="work_failed")
    )
    await asyncio.wait_for(called.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_background_work_ends_with_the_block_and_alone_where_it_fails() -> None:
    ended = asyncio.Event()
    failed = asyncio.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def failing() -> None:
        failed.set()
        raise CrawlscopeError("no disk")

    with capture_logs() as logs:
        async with in_background(for_ever(), failing()):
            await asyncio.wait_for(failed.wait(), 5)
            assert not ended.is_set()
    assert ended.is_set()
    assert [(line["event"], line["work"], line["reason"]) for line in logs] == [
        ("background_work_ended", "failing", "no disk")
    ]
