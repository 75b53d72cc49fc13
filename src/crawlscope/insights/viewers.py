"""The viewers of a live feed: each has a bounded queue of events that were encoded once for all."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import structlog

MAX_WAITING = 64
"""The events that wait for a viewer. One that falls further behind is disconnected and can resume."""

log = structlog.get_logger(__name__)


class Viewer:
    """What waits to be sent to one viewer."""

    def __init__(self, *, wants_pages: bool) -> None:
        self.wants_pages = wants_pages
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, event: bytes) -> bool:
        """False if the viewer is too far behind: what waits is dropped, and the feed ends."""
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put_nowait(event)
            return True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self.end()
        log.info("live_viewer_dropped", events_behind=MAX_WAITING)
        return False

    def end(self) -> None:
        self._waiting.put_nowait(None)

    async def events(self) -> AsyncIterator[bytes]:
        """All that wait, together."""
        while True:
            ready = [await self._waiting.get()]
            while not self._waiting.empty():
                ready.append(self._waiting.get_nowait())
            if events := b"".join(event for event in ready if event):
                yield events
            if None in ready:
                return


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

    def send(self, event: bytes, *, is_of_pages: bool = False) -> None:
        for viewer in [each for each in self._viewers if each.wants_pages or not is_of_pages]:
            if not viewer.put(event):
                self._viewers.discard(viewer)

    def end(self) -> None:
        for viewer in self._viewers:
            viewer.end()
        self._viewers.clear()
