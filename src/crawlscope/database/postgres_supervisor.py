"""The PostgreSQL supervisor: a process of its own that runs the embedded server while anybody uses it.

The first user starts it as `python -m crawlscope.database.postgres_supervisor CONNECTIONS DATA_DIR`. It
starts the server, or adopts the one that a killed supervisor left behind, and restarts it when it dies. It
waits for the users' lock and gets it when the last user has released it or was killed. It then stops the
server and keeps the lock until that is down, so that a new user waits and then starts another.
"""

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

from crawlscope.core.errors import CrawlscopeError, GaveUp
from crawlscope.core.file_lock import FileLock
from crawlscope.core.restarts import Restarts
from crawlscope.core.time_slices import use_short_time_slices
from crawlscope.database.postgres_cluster import Cluster, is_alive
from crawlscope.database.postgres_programs import account_for, find_programs

POLL_INTERVAL_SECONDS = 0.2
"""Until the server is ready."""
READY_INTERVAL_SECONDS = 2.0
"""Afterwards, for the size of its log and a folder that was removed: its end is noticed at once."""
START_ATTEMPTS = 5
LOCK_SECONDS = 5.0
"""A process that only tests the supervisor's lock holds it for a moment."""


class PostgresSupervisor:
    def __init__(self, cluster: Cluster, connections: int) -> None:
        self._cluster = cluster
        self._connections = connections
        self._users = FileLock(cluster.users_lock)
        self._stop = threading.Event()
        self._news = threading.Event()
        """Set when the server has ended, or is to be stopped."""
        self._server: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        """The server, unless it was adopted."""
        self._started_at = 0.0
        self._was_ready = False
        self._restarts = Restarts()

    def run(self) -> None:
        """Returns when the server is down. Raises `GaveUp` when it never came up."""
        threading.Thread(target=self._stop_after_last_user, daemon=True).start()
        self._server = self._cluster.postmaster()
        if self._server is not None:
            self._started_at = time.monotonic()
            self._watch(self._server)
            write_log(f"watching the server that runs as process {self._server.pid}")
        try:
            # A user who removes the data folder wants no server in it.
            while not self._stop.is_set() and self._cluster.users_lock.exists():
                if self._server is None or not is_alive(self._server):
                    self._start()
                else:
                    file = self._cluster.pid_file()
                    self._was_ready = self._was_ready or (file is not None and file.ready)
                    self._cluster.bound_log()
                self._news.wait(READY_INTERVAL_SECONDS if self._was_ready else POLL_INTERVAL_SECONDS)
                self._news.clear()
        finally:
            if self._server is not None and is_alive(self._server):
                self._cluster.stop(self._server)
            if self._child is not None:
                self._child.wait()

    def stop(self, _signal: int | None = None, _frame: FrameType | None = None) -> None:
        self._stop.set()
        self._news.set()

    def _watch(self, server: psutil.Process | subprocess.Popen[bytes]) -> None:
        def wait() -> None:
            server.wait()
            self._news.set()

        threading.Thread(target=wait, daemon=True).start()

    def _stop_after_last_user(self) -> None:
        self._users.wait_exclusive()
        write_log("the last user has gone")
        self.stop()

    def _start(self) -> None:
        if self._server is not None:
            how = "" if self._child is None else f" (exit status {self._child.wait()})"
            delay = self._restarts.delay_after(time.monotonic() - self._started_at)
            if not self._was_ready and self._restarts.failures >= START_ATTEMPTS:
                raise GaveUp("the server never came up")
            write_log(f"the server has died{how}; starting it again in {delay:.1f} s")
            if self._stop.wait(delay):
                return
        self._cluster.clear_remains()
        programs = find_programs(account_for(self._cluster.folder))
        self._child = self._cluster.spawn_server(programs, self._connections)
        self._server = psutil.Process(self._child.pid)
        self._started_at = time.monotonic()
        self._watch(self._child)


def write_log(text: str) -> None:
    """Into the log that server and supervisor share."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    sys.stderr.write(f"{now} UTC [{os.getpid()}] supervisor: {text}\n")


def main(connections: str, data_dir: str) -> int:
    """The exit code: 0 also where another supervisor runs, 1 where the server cannot; the log says why."""
    cluster = Cluster(Path(data_dir))
    sole = FileLock(cluster.supervisor_lock)
    if not sole.acquire(timeout_seconds=LOCK_SECONDS):
        return 0
    os.chdir("/")
    use_short_time_slices()
    supervisor = PostgresSupervisor(cluster, int(connections))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    try:
        supervisor.run()
    except GaveUp:
        return 1  # the server's own words are in the log
    except CrawlscopeError as error:
        write_log(f"FATAL: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
