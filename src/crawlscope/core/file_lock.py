"""Locks on open files: the system releases them when their process ends, however it ends."""

import fcntl
import os
import time
import weakref
from pathlib import Path

POLL_INTERVAL_SECONDS = 0.02


class FileLock:
    """One `flock`, shared or exclusive.

    The file stays when the lock is released: removing it would let two holders lock two different files.
    Methods raise `OSError` where the file cannot be opened or its filesystem knows no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    @property
    def in_place(self) -> bool:
        """False when the locked file was removed or replaced: another process would now lock another file."""
        return self._descriptor is not None and is_open_at(self._descriptor, self.path)

    def try_acquire(self, *, shared: bool = False) -> bool:
        return self._lock((fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def acquire(self, *, shared: bool = False, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire(shared=shared):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_INTERVAL_SECONDS)
        return True

    def wait_exclusive(self) -> None:
        """Sleeps in the kernel until nobody else holds the lock."""
        while not self._lock(fcntl.LOCK_EX):
            pass

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def drop_in_forked_children(self) -> None:
        """A forked child shares the parent's lock and would keep it held; this makes the child release it."""
        own = weakref.ref(self)

        def release_in_child() -> None:
            lock = own()
            if lock is not None:
                lock.release()

        os.register_at_fork(after_in_child=release_in_child)

    def _lock(self, operation: int) -> bool:
        if self._descriptor is not None:
            raise RuntimeError(f"{self.path} is locked already by this object")
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, operation)
            if is_open_at(descriptor, self.path):
                self._descriptor, descriptor = descriptor, -1
                return True
        except BlockingIOError:
            pass
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return False


def is_locked(path: Path) -> bool:
    """Whether a process holds `path` exclusively. Tests with a shared lock, so that two can test at once."""
    if not path.exists():
        return False
    probe = FileLock(path)
    locked = not probe.try_acquire(shared=True)
    probe.release()
    return locked


def is_open_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name; not when it was removed, renamed or replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
