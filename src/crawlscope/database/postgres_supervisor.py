"""The keeper: a process of its own that runs the embedded PostgreSQL for as long as somebody uses it.

Started by the first user as `python -m crawlscope.database.postgres_supervisor CONNECTIONS DATA_DIR`. It starts the
server, or adopts the one that a killed keeper left behind, starts it again when it dies, and stops it once it
gets the users' lock for itself: that is when the last user has let go or was killed. It keeps that lock until
it is gone, so that whoever comes meanwhile waits, and then starts anew.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psutil

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.file_lock import FileLock
from crawlscope.database.postgres_cluster import Cluster, is_alive
from crawlscope.database.postgres_programs import account_for, find_programs

LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A server that lived so long did not die of its start: the pauses begin anew."""
START_ATTEMPTS = 5


class GivenUp(Exception):
    """The server never came up."""


class Keeper:
    def __init__(self, cluster: Cluster, connections: int) -> None:
        self._cluster = cluster
        self._connections = connections
        self._stop = threading.Event()
        self._users = FileLock(cluster.users_lock)
        self._server: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._was_ready = False
        self._failures = 0

    def run(self) -> None:
        """Returns when the server is down. Raises `GivenUp` when it never came up."""
        threading.Thread(target=self._await_last_user, daemon=True).start()
        try:
            self._adopt()
            while not self._stop.is_set() and self._in_place():
                self._look()
                self._stop.wait(LOOK_SECONDS)
        finally:
            self._stop_server()

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _await_last_user(self) -> None:
        self._users.wait_exclusive()
        say("the last user has gone")
        self._stop.set()

    def _in_place(self) -> bool:
        """Whoever removes the data folder wants no server in it."""
        return self._cluster.users_lock.exists()

    def _adopt(self) -> None:
        self._server = self._cluster.postmaster()
        if self._server is not None:
            self._started_at = time.monotonic()
            say(f"watching the server that runs as process {self._server.pid}")

    def _look(self) -> None:
        if self._server is None or not self._runs():
            self._start()
            return
        file = self._cluster.pid_file()
        self._was_ready = self._was_ready or (file is not None and file.ready)
        if time.monotonic() - self._started_at > STEADY_SECONDS:
            self._failures = 0
        self._cluster.bound_log()

    def _runs(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._server is not None and is_alive(self._server)

    def _start(self) -> None:
        if self._server is not None:
            self._count_death()
        if self._stop.is_set():
            return
        self._cluster.clear_remains()
        self._child = self._cluster.spawn_server(
            find_programs(account_for(self._cluster.folder)), self._connections
        )
        self._started_at = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            self._server = psutil.Process(self._child.pid)

    def _count_death(self) -> None:
        """Pauses before the next attempt, longer each time."""
        how = "" if self._child is None else f" (exit status {self._child.returncode})"
        self._failures += 1
        if not self._was_ready and self._failures >= START_ATTEMPTS:
            raise GivenUp
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_SECONDS)
        say(f"the server has died{how}; starting it again in {pause:.1f} s")
        self._stop.wait(pause)

    def _stop_server(self) -> None:
        if self._server is not None and self._runs():
            self._cluster.stop(self._server)
        if self._child is not None:
            self._child.wait()


def say(text: str) -> None:
    """Into the log that server and keeper share."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    sys.stderr.write(f"{now} UTC [{os.getpid()}] keeper: {text}\n")


def main(connections: str, data_dir: str) -> int:
    cluster = Cluster(Path(data_dir))
    alone = FileLock(cluster.keeper_lock)
    if not alone.acquire(timeout_seconds=5):
        return 0  # another keeper was quicker
    alone.write(f"{os.getpid()}\n")
    os.chdir("/")
    keeper = Keeper(cluster, int(connections))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, keeper.stop)
    try:
        keeper.run()
    except GivenUp:
        return 1
    except CrawlscopeError as error:
        say(f"FATAL: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
