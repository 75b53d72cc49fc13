"""The folder `DATA_DIR/postgres`: making it, running a server in it, and finding out what runs there.

    postgres/          the caller's; nobody else writes to it
      data/            the cluster, the account's
      socket/          the only way in: there is no TCP port
      log              of server and supervisor, bounded
      users.lock       shared by every process that uses the server
      keeper.lock      held by the supervisor
      start.lock       held by the one user that makes the cluster and starts the supervisor
      ask.lock         held by the one user that tests whether others are left

The account that runs PostgreSQL for root may be unable to walk the folders above `DATA_DIR`. So root opens
the folder and the programs inherit it: to them it is `/proc/self/fd/N`, which needs no permission above it.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from crawlscope.core.data_dir import explained
from crawlscope.core.errors import DatabaseUnavailable, SettingsError
from crawlscope.database.postgres_programs import (
    MAJOR,
    Account,
    Programs,
    account_for,
    find_programs,
    last_line,
)

NAME = "crawlscope"
"""The name of the database, of its owner, and of the system account."""
PORT = 5432
SOCKET_FILE = f".s.PGSQL.{PORT}"
SOCKET_PATH_BYTES = 103
"""Maximum length of a socket's path on every platform (macOS 103, Linux 107)."""
SHORT_FOLDER = Path("/tmp")  # noqa: S108  # ownership is checked; $TMPDIR differs from process to process
SPACE_TO_INITIALISE = 128 * 1024 * 1024
LOG_BYTES = 10 * 1024 * 1024

INITDB_OPTIONS = (
    "--no-sync",  # once, at the end
    "--no-instructions",
    f"--username={NAME}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth-local=trust",  # a user who can reach the socket owns the data anyway
    "--auth-host=reject",
)

SUPERUSER_CONNECTIONS = 3

SERVER_SETTINGS = {
    "superuser_reserved_connections": str(SUPERUSER_CONNECTIONS),
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_compression": "pglz",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
}
"""Given on the command line, so that they also hold for clusters that an older version made."""


@dataclass(frozen=True)
class PidFile:
    """The file that a server writes into its data folder."""

    pid: int
    socket_folder: str
    status: str

    @property
    def ready(self) -> bool:
        return self.status == "ready"


@dataclass(frozen=True)
class View:
    """The folder as the programs see it."""

    root: str
    descriptors: tuple[int, ...] = ()

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


class Cluster:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.folder = self.data_dir / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.users_lock = self.folder / "users.lock"
        self.supervisor_lock = self.folder / "keeper.lock"  # the name that running earlier versions lock
        self.start_lock = self.folder / "start.lock"
        self.ask_lock = self.folder / "ask.lock"

    # ------------------------------------------------------------------ making it

    def prepare_folder(self) -> None:
        with self.explained():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0 and self.folder.stat().st_uid == 0:
                self.folder.chmod(0o711)  # the account passes through to its own files, and sees no more
            if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))

    def initialise(self, programs: Programs, timeout_seconds: float) -> None:
        """Makes the cluster and its database under another name first: what is called `data` is whole."""
        if shutil.disk_usage(self.folder).free < SPACE_TO_INITIALISE:
            raise DatabaseUnavailable(
                f"the disk of {self.data_dir} is nearly full: "
                f"a new database needs {SPACE_TO_INITIALISE >> 20} MiB"
            )
        if programs.account is None and _user_name(os.geteuid()) is None:
            raise SettingsError(
                f"user id {os.geteuid()} has no name here, which PostgreSQL needs to make a database: "
                "add it to /etc/passwd, run as another user, or set CRAWLSCOPE_DATABASE_URL"
            )
        for abandoned in self.folder.glob("data.new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        staging = self.folder / f"data.new-{secrets.token_hex(4)}"
        with self.explained():
            staging.mkdir(mode=0o700)
            try:
                programs.give(staging)
                self._make_cluster(staging.name, programs, time.monotonic() + timeout_seconds)
                staging.rename(self.data)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            _sync_folder(self.folder)

    def check_data(self) -> bool:
        """False when there is no cluster yet. Raises `SettingsError` when what is there cannot be run."""
        with self.explained():
            if not self.data.exists() or not any(self.data.iterdir()):
                return False
            try:
                version = (self.data / "PG_VERSION").read_text().strip()
            except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
                raise SettingsError(
                    f"{self.data} is not the data folder of a PostgreSQL server: "
                    "move it away, or choose another CRAWLSCOPE_DATA_DIR"
                ) from None
            owner = self.data.stat().st_uid
        if version != str(MAJOR):
            raise SettingsError(
                f"{self.data} was written by PostgreSQL {version} and this is {MAJOR}: "
                "take it over with pg_upgrade or pg_dump, or move it away"
            )
        if os.geteuid() not in (0, owner):
            raise SettingsError(
                f"{self.data} belongs to {_user_name(owner) or owner}: run Crawlscope as that user"
            )
        return True

    def _make_cluster(self, name: str, programs: Programs, deadline: float) -> None:
        steps = (
            ("initdb", INITDB_OPTIONS, ""),
            ("postgres", ("--single", "-c", "exit_on_error=on"), f"CREATE DATABASE {NAME} OWNER {NAME}\n"),
            ("initdb", ("--sync-only",), ""),
        )
        with self.seen_by(programs.account) as view:
            for program, options, text in steps:
                database = ["postgres"] if text else []
                command = programs.command(program, *options, "-D", view.path(name), *database)
                try:
                    run = subprocess.run(  # noqa: S603  # our own program
                        command, **programs.process_options(view.descriptors), input=text, text=True,
                        errors="replace", capture_output=True, check=False,
                        timeout=max(1.0, deadline - time.monotonic()),
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    raise DatabaseUnavailable(
                        f"making the database took too long ({program}): is the disk very slow?"
                    ) from None
                except subprocess.SubprocessError as error:
                    raise DatabaseUnavailable(f"{program} cannot be started: {error}") from error
                if run.returncode != 0:
                    lines = [line.strip() for line in run.stderr.splitlines()]
                    errors = [line for line in lines if re.search("error:|FATAL:|ERROR:", line)]
                    reason = errors[0] if errors else last_line(run.stderr)
                    raise DatabaseUnavailable(f"{program} could not make the database: {reason}")

    # ------------------------------------------------------------------ running a server

    @contextlib.contextmanager
    def seen_by(self, account: Account | None) -> Iterator[View]:
        """Open as long as a program is being started; the program then has its own hold on the folder."""
        if account is None or sys.platform != "linux":
            yield View(str(self.folder))
            return
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield View(f"/proc/self/fd/{descriptor}", (descriptor,))
        finally:
            os.close(descriptor)

    def spawn_server(self, programs: Programs, connections: int) -> subprocess.Popen[bytes]:
        """Its output goes where the caller's goes."""
        with self.explained(), self.seen_by(programs.account) as view:
            place = self._make_socket_folder(programs)
            seen = view.path("socket") if place.parent == self.folder else str(place)
            settings = SERVER_SETTINGS | {
                "max_connections": str(connections + SUPERUSER_CONNECTIONS),
                "unix_socket_directories": '"'
                + seen.replace('"', '""')
                + '"',  # a list: a comma would part it
                "cluster_name": self.identity(),
            }
            options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
            command = programs.command("postgres", "-D", view.path("data"), *options)
            return subprocess.Popen(  # noqa: S603  # our own program
                command, stdin=subprocess.DEVNULL, **programs.process_options(view.descriptors)
            )

    def clear_remains(self) -> None:
        """Removes what a killed server left: processes without a postmaster, files that name another process.

        PostgreSQL itself takes any living process with the number in `postmaster.pid` for its own kind. Only
        for the holder of the supervisor's lock. Raises `DatabaseUnavailable` when a server runs that cannot
        be seen.
        """
        for number in (signal.SIGQUIT, signal.SIGKILL):
            remains = self.processes()
            for process in remains:
                _send(process, number)
            for process in remains:
                _ends_within(process, 5.0)
        if self._listens():
            raise DatabaseUnavailable(
                f"a PostgreSQL server outside of this container already serves {self.data}: stop it first"
            )
        folder = self.socket_folder()
        for stale in (self.data / "postmaster.pid", *([folder / f"{SOCKET_FILE}.lock"] if folder else [])):
            stale.unlink(missing_ok=True)

    def stop(self, postmaster: psutil.Process, patience_seconds: float = 30) -> None:
        """Fast shutdown, which ends sessions and writes a checkpoint; then the ways that need a recovery."""
        for number, seconds in (
            (signal.SIGINT, patience_seconds),
            (signal.SIGQUIT, 10.0),
            (signal.SIGKILL, 5.0),
        ):
            _send(postmaster, number)
            if _ends_within(postmaster, seconds):
                break
        with contextlib.suppress(OSError):
            self._short_socket_folder().rmdir()

    # ------------------------------------------------------------------ what runs

    def identity(self) -> str:
        """The same for every path to the folder; every process of the server carries it in its title."""
        status = self.folder.stat()
        digest = hashlib.sha256(f"{status.st_dev}:{status.st_ino}".encode()).hexdigest()
        return f"{NAME}-{digest[:12]}"

    def postmaster(self) -> psutil.Process | None:
        """The running server. A process that merely got the number of a dead one lacks our name."""
        file = self.pid_file()
        if file is None:
            return None
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(file.pid)
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and f"cluster_name={self.identity()}" in process.cmdline()
            ):
                return process
        return None

    def pid_file(self) -> PidFile | None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return PidFile(int(lines[0]), lines[4], lines[7].strip())
        return None

    def socket_folder(self) -> Path | None:
        """The folder of the running server's socket, as the caller sees it."""
        file = self.pid_file()
        if file is None:
            return None
        return (
            self.folder / "socket"
            if file.socket_folder.startswith("/proc/self/fd/")
            else Path(file.socket_folder)
        )

    def accepts_sessions(self) -> bool:
        """Asks the server, with `pg_isready`: that takes 10 to 20 ms."""
        file = self.pid_file()
        if file is None or not file.ready:  # it would refuse, and log that it did
            return False
        programs = dataclasses.replace(find_programs(account_for(self.folder)), account=None)
        options = ("--quiet", "--timeout=5", f"--host={self.socket_folder()}", f"--port={PORT}")
        command = programs.command("pg_isready", *options, f"--username={NAME}", f"--dbname={NAME}")
        with contextlib.suppress(OSError):
            run = subprocess.run(command, **programs.process_options(), check=False)  # noqa: S603  # our own program
            return run.returncode == 0
        return False

    def last_error(self, since: int) -> str:
        """The last line that server or supervisor logged after position `since`; fatal ones before others."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(min(since, self.log.stat().st_size))
            said = log.read()[-65536:].decode(errors="replace")
            fatal = [line for line in said.splitlines() if "FATAL:" in line or "PANIC:" in line]
            return last_line("\n".join(fatal) or said)
        return "its log cannot be read"

    def bound_log(self) -> None:
        """Keeps one older log. Copies and truncates: running programs have the file open for appending."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            shutil.copy2(self.log, self.log.with_name("log.old"))
            os.truncate(self.log, 0)

    def explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(self.data_dir)

    def processes(self) -> list[psutil.Process]:
        """Every process of this cluster's server, with or without a postmaster."""
        title, argument = f"postgres: {self.identity()}:", f"cluster_name={self.identity()}"
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (words := process.info["cmdline"]) and (words[0].startswith(title) or argument in words)
        ]

    def _listens(self) -> bool:
        """This includes a server that hangs, or whose processes cannot be seen from here."""
        folder = self.socket_folder()
        if folder is None:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(folder / SOCKET_FILE))
            return True
        return False

    def _short_socket_folder(self) -> Path:
        return SHORT_FOLDER / self.identity()

    def _make_socket_folder(self, programs: Programs) -> Path:
        near = self.folder / "socket"
        fits = len(os.fsencode(near / SOCKET_FILE)) <= SOCKET_PATH_BYTES
        plain = not set(str(near)) & set(',:"')  # in a URL, clients read them as a list of hosts and ports
        place = near if fits and plain else self._short_socket_folder()
        place.mkdir(mode=0o700, exist_ok=True)
        owners = {os.geteuid(), programs.account.uid if programs.account else os.geteuid()}
        if place.is_symlink() or not place.is_dir() or place.lstat().st_uid not in owners:
            raise SettingsError(f"{place} is not Crawlscope's own folder: remove it")
        place.chmod(0o700)
        programs.give(place)
        return place


def is_alive(process: psutil.Process) -> bool:
    """A zombie is dead: where process 1 reaps nobody, it would otherwise live for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _ends_within(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
