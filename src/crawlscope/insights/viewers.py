"""The viewers of a live feed: each has a bounded queue of events that were encoded once for all."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import structlog

MAX_WAITING = 64
"""The events that wait for a viewer. One that falls further behind is disconnected and can resume."""

log = structlog.get_logger(__name__)


class _Waiting(NamedTuple):
    event: bytes
    is_whole: bool


class Viewer:
    """The events that wait to be sent to one viewer."""

    def __init__(self, *, wants_pages: bool) -> None:
        self.wants_pages = wants_pages
        self._waiting = deque[_Waiting]()
        self._ready = asyncio.Event()
        self._ended = False

    def put(self, event: bytes, *, is_whole: bool = False) -> bool:
        """A whole replaces the one that waits. False if the viewer is too far behind: what waits is dropped,
        and the feed ends."""
        if is_whole:
            self._waiting = deque(each for each in self._waiting if not each.is_whole)
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(_Waiting(event, is_whole))
            self._ready.set()
            return True
        self._waiting.clear()
        self.end()
        log.info("live_viewer_dropped", events_behind=MAX_WAITING)
        return False

    def end(self) -> None:
        self._ended = True
        self._ready.set()

    async def events(self) -> AsyncIterator[bytes]:
        """All that wait, together."""
        while self._waiting or not self._ended:
            await self._ready.wait()
            self._ready.clear()
            ready, self._waiting = self._waiting, deque()
            if ready:
                yield b"".join(each.event for each in ready)


class Viewers:
    """The viewers of one feed."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()

    def __bool__(self) -> bool:
        return bool(self._viewers)

    @property
    def want_pages(self) -> bool:
        return any(viewer.wants_pages for viewer in self._viewers)

    @contextmanager
    def joined(self, *, wants_pages: bool = True) -> Iterator[Viewer]:
        viewer = Viewer(wants_pages=wants_pages)
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def send(self, event: bytes, *, is_of_pages: bool = False, is_whole: bool = False) -> None:
        for viewer in [each for each in self._viewers if each.wants_pages or not is_of_pages]:
            if not viewer.put(event, is_whole=is_whole):
                self._viewers.discard(viewer)

    def end(self) -> None:
        for viewer in self._viewers:
            viewer.end()
        self._viewers.clear()
