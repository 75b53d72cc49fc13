"""What a worker process may take of time and memory. Beyond it the process ends: that ends any code."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import psutil
import structlog

LOOK_SECONDS = 0.2
TOOK_TOO_MUCH_MEMORY = 86
"""The exit code that tells so."""

log = structlog.get_logger(__name__)


class Deadlines:
    """Ends the process when a page in hand is overdue, also while native code lets no Python run.

    What it was doing is added to `file` first, which stays open.
    """

    def __init__(self, seconds: float, file: TextIO) -> None:
        self._seconds = seconds
        self._file = file
        self._ends: list[float] = []

    @contextmanager
    def page(self) -> Iterator[None]:
        end = time.monotonic() + self._seconds
        self._ends.append(end)
        self._arm()
        try:
            yield
        finally:
            self._ends.remove(end)
            self._arm()

    def _arm(self) -> None:
        if not self._ends:
            faulthandler.cancel_dump_traceback_later()
            return
        left = max(min(self._ends) - time.monotonic(), 0.001)
        faulthandler.dump_traceback_later(left, exit=True, file=self._file)


@contextmanager
def deadlines(seconds: float, folder: Path) -> Iterator[Deadlines]:
    """`folder/stuck-pages.log` gets the tracebacks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stuck-pages.log").open("a") as file:
        yield Deadlines(seconds, file)


def watch_memory(limit_bytes: int) -> None:
    """Ends the process once it takes more; 0: never."""
    if limit_bytes:
        threading.Thread(target=_watch_memory, args=(limit_bytes,), name="memory", daemon=True).start()


def _watch_memory(limit_bytes: int) -> None:
    process = psutil.Process()
    while (taken := process.memory_info().rss) <= limit_bytes:
        time.sleep(LOOK_SECONDS)
    log.error("worker_memory_exceeded", rss_bytes=taken, limit_bytes=limit_bytes)
    os._exit(TOOK_TOO_MUCH_MEMORY)
