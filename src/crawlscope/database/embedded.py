"""The embedded PostgreSQL, as the processes that use it see it: there from `acquire` to `release`.

Each user holds a shared lock. A separate process, the keeper, runs the server for as long as anybody holds it
(see `crawlscope.database.postgres_supervisor`): whoever is killed lets go as well, so no server outlives its users.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.core.file_lock import POLL_SECONDS, FileLock, is_locked
from crawlscope.database.postgres_cluster import NAME, Cluster
from crawlscope.database.postgres_programs import account_for, find_programs

LEAST_CONNECTIONS = 120
"""More cost the server about 30 kB each."""
STOP_SECONDS = 15.0
"""How long the last user waits for the server to be down."""


@dataclass(frozen=True)
class PostgresStatus:
    state: Literal["absent", "stopped", "starting", "running"]
    server_pid: int | None
    keeper_pid: int | None
    socket_folder: Path | None
    log: Path


class EmbeddedPostgres:
    """Safe to call from several threads; a forked child does not count as a user."""

    def __init__(self, data_dir: Path, connections: int = LEAST_CONNECTIONS) -> None:
        """`connections`: how many a server allows that has to be started for this user."""
        self._connections = max(connections, LEAST_CONNECTIONS)
        self._cluster = Cluster(data_dir)
        self._users = FileLock(self._cluster.users_lock)
        self._users.drop_in_forked_children()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._turn = threading.RLock()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self, timeout_seconds: float = 60) -> str:
        """Starts the server, or joins it, and returns its URL; makes the database on first use.

        Raises `SettingsError` when the data folder cannot work and `DatabaseUnavailable` when the server
        does not come up. Calling it again while it is held returns the URL.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._turn:
            self._cluster.prepare_folder()
            with self._cluster.explained():
                self._join(deadline)
            try:
                return self._bring_up(deadline)
            except BaseException:
                self.release()
                raise

    def ensure_running(self, timeout_seconds: float = 60) -> None:
        """Brings back what died, server or keeper, and returns when sessions can be opened.

        Cheap while all is well. Does nothing once released.
        """
        with self._turn:
            if not self._users.held:
                return
            if not self._users.in_place:
                raise DatabaseUnavailable(
                    f"{self._cluster.folder} was removed while it was in use: start again"
                )
            if not self._is_kept():
                self._bring_up(time.monotonic() + timeout_seconds)

    def release(self) -> None:
        """Lets go. The last user returns when the server is down, or after 15 s; others return at once."""
        with self._turn:
            if self._users.held:
                self._users.release()
                with contextlib.suppress(
                    FileNotFoundError
                ):  # the folder was removed, and its server goes too
                    self._see_server_off(time.monotonic() + STOP_SECONDS)
            self._reap_keeper()

    def status(self) -> PostgresStatus:
        """What is there, without starting anything."""
        cluster = self._cluster
        postmaster = cluster.postmaster()
        file = cluster.pid_file()
        return PostgresStatus(
            state=self._state(),
            server_pid=postmaster.pid if postmaster else None,
            keeper_pid=self._keeper_pid(),
            socket_folder=cluster.socket_folder() if file and file.ready else None,
            log=cluster.log,
        )

    @property
    def url(self) -> str:
        """For asyncpg, and with `postgresql+asyncpg` for SQLAlchemy. Only of use while the server runs."""
        folder = self._cluster.socket_folder() or self._cluster.folder / "socket"
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(folder))}"

    # ------------------------------------------------------------------ coming

    def _join(self, deadline: float) -> None:
        """Becomes a user. Waits while a keeper that was left by its last user stops the server."""
        if self._users.held and self._users.in_place:
            return
        self._users.release()
        if not self._users.acquire(shared=True, timeout_seconds=deadline - time.monotonic()):
            raise DatabaseUnavailable(
                f"PostgreSQL does not finish shutting down in {self._cluster.folder}: see {self._cluster.log}"
            )

    def _bring_up(self, deadline: float) -> str:
        if not (self._is_kept() and self._cluster.answers()):
            starting = FileLock(self._cluster.start_lock)
            with self._cluster.explained():
                if not starting.acquire(timeout_seconds=deadline - time.monotonic()):
                    raise DatabaseUnavailable(
                        f"another process takes too long to start PostgreSQL: see {self._cluster.log}"
                    )
            try:
                self._start(deadline)
            finally:
                starting.release()
        return self.url

    def _start(self, deadline: float) -> None:
        """Under the start-up lock: whoever waited for it finds the server up."""
        self._reap_keeper()
        if not self._cluster.check_data():
            programs = find_programs(account_for(self._cluster.folder))
            self._cluster.initialise(programs, deadline - time.monotonic())
        self._cluster.bound_log()
        log_position = self._cluster.log.stat().st_size if self._cluster.log.exists() else 0
        while not self._cluster.answers() or not is_locked(self._cluster.keeper_lock):
            self._have_keeper(log_position)
            if time.monotonic() >= deadline:
                said = self._cluster.complaint(log_position)
                raise DatabaseUnavailable(f"PostgreSQL does not come up ({said}): see {self._cluster.log}")
            time.sleep(POLL_SECONDS)

    def _have_keeper(self, log_position: int) -> None:
        if self._keeper is not None and (self._keeper.poll() or 0) > 0:
            self._keeper = None
            said = self._cluster.complaint(log_position)
            raise DatabaseUnavailable(f"PostgreSQL does not start: {said} (log: {self._cluster.log})")
        own_runs = self._keeper is not None and self._keeper.poll() is None
        if not own_runs and not is_locked(self._cluster.keeper_lock):
            self._keeper = self._spawn_keeper()

    def _spawn_keeper(self) -> subprocess.Popen[bytes]:
        """In a session of its own, so that no signal meant for its user's terminal or group reaches it."""
        with self._cluster.explained():
            descriptor = os.open(self._cluster.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        arguments = [str(self._connections), str(self._cluster.data_dir)]
        try:
            return subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-m", "crawlscope.database.postgres_supervisor", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        except OSError as error:
            raise DatabaseUnavailable(f"{sys.executable} cannot be started: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _is_kept(self) -> bool:
        """Without opening a session, so that asking every second costs nothing."""
        file = self._cluster.pid_file()
        if file is None or not file.ready or not is_locked(self._cluster.keeper_lock):
            return False
        return self._cluster.postmaster() is not None or self._cluster.answers()

    # ------------------------------------------------------------------ going

    def _see_server_off(self, deadline: float) -> None:
        asking = FileLock(self._cluster.ask_lock)
        while time.monotonic() < deadline:
            if asking.try_acquire():
                try:
                    if self._is_over_or_used():
                        return
                finally:
                    asking.release()
            time.sleep(POLL_SECONDS)

    def _is_over_or_used(self) -> bool:
        """One look at the users' lock. One process looks at a time: a look must not be taken for a user."""
        look = FileLock(self._cluster.users_lock)
        if look.try_acquire():
            try:
                return self._stop_unkept()
            finally:
                look.release()
        if look.try_acquire(shared=True):
            look.release()
            return True
        return False  # the keeper holds it, and is stopping the server

    def _stop_unkept(self) -> bool:
        """Alone. A keeper gets the lock in a moment and stops the server; without one it is up to us."""
        if is_locked(self._cluster.keeper_lock):
            return False
        postmaster = self._cluster.postmaster()
        if postmaster is not None:
            self._cluster.stop(postmaster, patience_seconds=STOP_SECONDS)
        return True

    def _reap_keeper(self) -> None:
        """A keeper that this process started would stay a zombie until the process ends."""
        if self._keeper is None or is_locked(self._cluster.keeper_lock):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(timeout=2)
            self._keeper = None

    # ------------------------------------------------------------------ telling

    def _state(self) -> Literal["absent", "stopped", "starting", "running"]:
        if not (self._cluster.data / "PG_VERSION").exists():
            return "absent"
        if self._cluster.answers():
            return "running"
        return "starting" if is_locked(self._cluster.keeper_lock) else "stopped"

    def _keeper_pid(self) -> int | None:
        if not is_locked(self._cluster.keeper_lock):
            return None
        noted = self._cluster.keeper_lock.read_text().strip()
        return int(noted) if noted.isdigit() else None
