"""How often a host is requested: as its robots.txt says, and less often after each refusal."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from crawlscope.crawler.fetch import FetchFailed

MAX_WAIT_SECONDS = 300.0
"""A host with a longer delay is not requested again in this crawl."""
_MAX_REFUSING_SECONDS = 600.0
"""A host that has refused every request for this time is not requested again either."""
_FIRST_INTERVAL_SECONDS = 0.1
_MAX_INTERVAL_SECONDS = 10.0
_MAX_INTERVAL_WITHOUT_RETRY_AFTER_SECONDS = 1.0
_ANSWERS_UNTIL_FASTER = 10


class Stopped(Exception):
    """The crawl was cancelled while this page waited for its turn."""


class Clock:
    """Time as a crawl sees it; tests bring their own."""

    def now(self) -> float:
        return time.monotonic()

    async def wait(self, seconds: float, stopping: asyncio.Event) -> None:
        """Waits until so many seconds have passed or the event is set."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopping.wait()


class Pace:
    """When the next request to a host may start, over all pages of a crawl."""

    def __init__(self, host: str, clock: Clock, stopping: asyncio.Event, delay_seconds: float = 0.0) -> None:
        """With a delay, requests start so many seconds apart at least, each when the last has ended."""
        self._host = host
        self._clock = clock
        self._stopping = stopping
        self._delay_seconds = delay_seconds
        self._interval = delay_seconds
        self._places = asyncio.Semaphore(1 if delay_seconds else 2**16)
        self._queue = asyncio.Lock()
        self._next_at = clock.now()
        self._slowed_at = float("-inf")
        self._refusing_since: float | None = None
        self._refused_with = 0
        self._answers = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Waits for the moment to send a request, which it yields.

        Raises `FetchFailed` if that moment is too far away, `Stopped` when the crawl ends before.
        """
        async with self._places:
            async with self._queue:
                while (seconds := self._next_at - self._clock.now()) > 0:
                    since = self._refusing_since
                    if seconds > MAX_WAIT_SECONDS:
                        raise self._closed(f"asks for no request for {seconds:.0f} seconds more")
                    if since is not None and self._clock.now() + seconds - since > _MAX_REFUSING_SECONDS:
                        raise self._closed(f"nothing else for {_MAX_REFUSING_SECONDS:.0f} seconds")
                    await self.wait(seconds)
                now = self._clock.now()
                self._next_at = now + self._interval
            yield now

    async def wait(self, seconds: float) -> None:
        """Raises `Stopped`."""
        await self._clock.wait(seconds, self._stopping)
        if self._stopping.is_set():
            raise Stopped

    def refused(self, asked_at: float, status_code: int, wait_seconds: float) -> None:
        """The host wants fewer requests: none for so long, and then half as many as before.

        One that gives no time may have trouble with this page alone, so that it is slowed down less.
        """
        now = self._clock.now()
        self._next_at = max(self._next_at, now + wait_seconds)
        self._refused_with = status_code
        self._refusing_since = now if self._refusing_since is None else self._refusing_since
        self._answers = 0
        if asked_at > self._slowed_at:  # an older request says nothing about the new pace
            limit = _MAX_INTERVAL_SECONDS if wait_seconds else _MAX_INTERVAL_WITHOUT_RETRY_AFTER_SECONDS
            slower = min(max(2 * self._interval, _FIRST_INTERVAL_SECONDS), limit)
            self._interval = max(self._interval, slower)
            self._slowed_at = now

    def answered(self) -> None:
        """The host took a request; after enough of them it is asked faster again."""
        self._refusing_since = None
        self._answers += 1
        if self._answers >= _ANSWERS_UNTIL_FASTER and self._interval > self._delay_seconds:
            faster = self._interval / 2
            self._interval = faster if faster > max(self._delay_seconds, 0.01) else self._delay_seconds
            self._answers = 0

    def _closed(self, reason: str) -> FetchFailed:
        refused = f"not requested: {self._host} answered {self._refused_with}"
        return FetchFailed(f"{refused} and {reason}", code=f"http_{self._refused_with}")
