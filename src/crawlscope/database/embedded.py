"""The embedded PostgreSQL for the processes that use it: it runs from `acquire` to `release`.

Each user holds a shared lock. A process of its own, the PostgreSQL supervisor, runs the server while anybody
holds it. A killed user releases its lock too, so no server outlives its users.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.core.file_lock import POLL_INTERVAL_SECONDS, FileLock, is_locked
from crawlscope.database.postgres_cluster import NAME, Cluster
from crawlscope.database.postgres_programs import account_for, find_programs

MIN_CONNECTIONS = 120
"""More cost the server about 30 kB each."""
STOP_SECONDS = 15.0
"""How long the last user waits for the server to be down."""


class EmbeddedPostgres:
    """Safe to call from several threads; a forked child does not count as a user."""

    def __init__(self, data_dir: Path, connections: int = MIN_CONNECTIONS) -> None:
        """`connections`: how many a server allows that has to be started for this user."""
        self._connections = max(connections, MIN_CONNECTIONS)
        self._cluster = Cluster(data_dir)
        self._users = FileLock(self._cluster.users_lock)
        self._users.drop_in_forked_children()
        self._supervisor: subprocess.Popen[bytes] | None = None
        """The one that this process started, until its end was seen."""
        self._turn = threading.RLock()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def url(self) -> str:
        """For asyncpg, and with `postgresql+asyncpg` for SQLAlchemy. Only of use while the server runs."""
        folder = self._cluster.socket_folder() or self._cluster.folder / "socket"
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(folder))}"

    def acquire(self, timeout_seconds: float = 60) -> str:
        """Starts the server, or joins it, and returns its URL; makes the database on first use.

        Raises `SettingsError` when the data folder cannot work and `DatabaseUnavailable` when the server
        does not come up. Calling it again while it is held returns the URL.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._turn:
            self._cluster.prepare_folder()
            if not self._users.in_place:
                self._users.release()
                with self._cluster.explained():
                    joined = self._users.acquire(shared=True, timeout_seconds=deadline - time.monotonic())
                if not joined:  # the supervisor keeps the lock until it has stopped the server
                    raise DatabaseUnavailable(
                        f"PostgreSQL does not finish shutting down in {self._cluster.folder}: "
                        f"see {self._cluster.log}"
                    )
            try:
                if not (self._is_supervised() and self._cluster.accepts_sessions()):
                    self._bring_up(deadline)
            except BaseException:
                self.release()
                raise
            return self.url

    def ensure_running(self, timeout_seconds: float = 60) -> None:
        """Brings back what died, server or supervisor, and returns when sessions can be opened.

        Cheap while all is well. Does nothing once released.
        """
        with self._turn:
            if not self._users.held:
                return
            if not self._users.in_place:
                raise DatabaseUnavailable(
                    f"{self._cluster.folder} was removed while it was in use: start again"
                )
            if not self._is_supervised():
                self._bring_up(time.monotonic() + timeout_seconds)

    def release(self) -> None:
        """The last user returns when the server is down, or after 15 s; others return at once."""
        with self._turn:
            if self._users.held:
                self._users.release()
                with contextlib.suppress(FileNotFoundError):  # the folder was removed: the server stops too
                    self._await_shutdown(time.monotonic() + STOP_SECONDS)
            self._reap_supervisor()

    def _is_supervised(self) -> bool:
        """Whether server and supervisor run; costs nothing, so that it can be asked every second."""
        file = self._cluster.pid_file()
        if file is None or not file.ready or not is_locked(self._cluster.supervisor_lock):
            return False
        return self._cluster.postmaster() is not None or self._cluster.accepts_sessions()

    def _bring_up(self, deadline: float) -> None:
        """One user at a time: the next one finds the server up."""
        cluster, starting = self._cluster, FileLock(self._cluster.start_lock)
        with cluster.explained():
            if not starting.acquire(timeout_seconds=deadline - time.monotonic()):
                raise DatabaseUnavailable(
                    f"another process takes too long to start PostgreSQL: see {cluster.log}"
                )
        try:
            self._reap_supervisor()
            if not cluster.check_data():
                programs = find_programs(account_for(cluster.folder))
                cluster.initialise(programs, deadline - time.monotonic())
            cluster.bound_log()
            log_position = cluster.log.stat().st_size if cluster.log.exists() else 0
            while not (is_locked(cluster.supervisor_lock) and cluster.accepts_sessions()):
                self._ensure_supervisor(log_position)
                if time.monotonic() >= deadline:
                    reason = cluster.last_error(log_position)
                    raise DatabaseUnavailable(f"PostgreSQL does not come up ({reason}): see {cluster.log}")
                time.sleep(POLL_INTERVAL_SECONDS)
        finally:
            starting.release()

    def _ensure_supervisor(self, log_position: int) -> None:
        """In a session of its own, so that no signal for its user's terminal or group reaches it."""
        cluster = self._cluster
        exit_code = None if self._supervisor is None else self._supervisor.poll()
        if exit_code is not None and exit_code > 0:
            self._supervisor = None
            reason = cluster.last_error(log_position)
            raise DatabaseUnavailable(f"PostgreSQL does not start: {reason} (log: {cluster.log})")
        own_runs = self._supervisor is not None and exit_code is None
        if own_runs or is_locked(cluster.supervisor_lock):
            return
        command = [sys.executable, "-P", "-m", "crawlscope.database.postgres_supervisor"]
        with cluster.explained():
            log = os.open(cluster.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._supervisor = subprocess.Popen(  # noqa: S603  # our own program
                [*command, str(self._connections), str(cluster.data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise DatabaseUnavailable(f"{sys.executable} cannot be started: {error.strerror}") from error
        finally:
            os.close(log)

    def _await_shutdown(self, deadline: float) -> None:
        """Returns when the server is down or somebody else uses it.

        Only one process tests the users' lock at a time: the test itself must not be taken for a user.
        """
        testing = FileLock(self._cluster.ask_lock)
        while time.monotonic() < deadline:
            if testing.try_acquire():
                try:
                    if self._is_down_or_used():
                        return
                finally:
                    testing.release()
            time.sleep(POLL_INTERVAL_SECONDS)

    def _is_down_or_used(self) -> bool:
        test = FileLock(self._cluster.users_lock)
        try:
            if test.try_acquire():  # nobody is left
                if is_locked(self._cluster.supervisor_lock):
                    return False  # it gets the lock in a moment and stops the server
                postmaster = self._cluster.postmaster()
                if postmaster is not None:
                    self._cluster.stop(postmaster, patience_seconds=STOP_SECONDS)
                return True
            return test.try_acquire(shared=True)  # else the supervisor has the lock, and stops the server
        finally:
            test.release()

    def _reap_supervisor(self) -> None:
        """A supervisor that this process started would stay a zombie until the process ends."""
        if self._supervisor is None or is_locked(self._cluster.supervisor_lock):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(timeout=2)
            self._supervisor = None
