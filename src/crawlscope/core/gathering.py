"""Callers that wait for each other, to go on together."""

import asyncio
import math
from collections.abc import Callable


class Gathering:
    """Callers go on when `enough` of them wait, or when no `more_to_come`; else when none has come for
    `pause_seconds` and the patience of one has ended.
    """

    def __init__(self, enough: int, more_to_come: Callable[[], bool], pause_seconds: float) -> None:
        self._enough = enough
        self._more_to_come = more_to_come
        self._pause_seconds = pause_seconds
        self._waiting: set[asyncio.Future[None]] = set()
        self._patient_until = math.inf
        self._ending: asyncio.TimerHandle | None = None

    async def wait(self, patience_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        going_on = loop.create_future()
        self._waiting.add(going_on)
        self._patient_until = min(self._patient_until, loop.time() + patience_seconds)
        self.look()
        try:
            await going_on
        finally:
            self._waiting.discard(going_on)

    def look(self) -> None:
        """To be called when one that was to come does not."""
        loop = asyncio.get_running_loop()
        if self._ending:
            self._ending.cancel()
        if len(self._waiting) >= self._enough or not self._more_to_come():
            self._go_on()
        else:
            self._ending = loop.call_at(
                max(self._patient_until, loop.time() + self._pause_seconds), self._go_on
            )

    def _go_on(self) -> None:
        for going_on in self._waiting:
            if not going_on.done():
                going_on.set_result(None)
        self._waiting.clear()
        self._patient_until = math.inf
