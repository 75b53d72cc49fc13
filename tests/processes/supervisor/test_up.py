"""`up` starts the database, the API and the workers, keeps them running, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from crawlscope.core import service_file
from crawlscope.database import connections
from crawlscope.database.engine import Database
from tests.processes.supervisor.support import Diary, command
from tests.support.polling import eventually
from tests.support.postgres import answers, nothing_runs, server_pid, supervisor_pid

UP = """
import asyncio, json, sys
from crawlscope.core import logs
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import load_settings
from crawlscope.processes.supervisor.up import Commands, up

async def prepare():
    print("prepared", flush=True)

def announce(url):
    print(url, flush=True)

logs.configure("INFO", "up")
try:
    code = asyncio.run(up(load_settings(), announce, prepare, commands=Commands(**json.loads(sys.argv[1]))))
except CrawlscopeError as error:
    sys.exit(f"crawlscope: {error}")
sys.exit(code)
"""


class Stack:
    def __init__(self, folder: Path, **settings: str) -> None:
        self.data_dir = folder / "home"
        self.diary = Diary(folder)
        self._env = {
            **self.diary.env,
            "CRAWLSCOPE_DATA_DIR": str(self.data_dir),
            "CRAWLSCOPE_WORKERS": "2",
            **{f"CRAWLSCOPE_{name}": value for name, value in settings.items()},
        }
        self._started: list[subprocess.Popen[str]] = []

    def up(self, **commands: list[str]) -> subprocess.Popen[str]:
        commands = {
            "index": command("work", "index"),
            "api": command("api"),
            "index_worker": command("work", "worker"),
            "crawler": command("work", "crawler"),
        } | commands
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", UP, json.dumps(commands)],
            env=self._env,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """With a database elsewhere, so that only the processes are there."""
    stack = Stack(tmp_path, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    yield stack
    stack.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.close()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def _started(process: subprocess.Popen[str], stack: Stack) -> str:
    assert _line(process) == "prepared"
    url = _line(process)
    expected = {f"start {name}" for name in ("index", "api", "worker", "crawler")}
    await eventually(lambda: expected <= set(stack.diary.events()))
    return url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_everything_runs_until_a_signal_and_nothing_after(
    embedded: Stack, number: signal.Signals
) -> None:
    process = embedded.up()
    url = await _started(process, embedded)
    assert httpx2.get(f"{url}/readyz").status_code == 200
    assert answers(embedded.data_dir)
    await eventually(lambda: embedded.diary.events().count("start worker") == 2)
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    assert embedded.diary.all_gone()
    assert embedded.diary.events()[-2:] == ["stop api", "stop index"]
    assert nothing_runs(embedded.data_dir)
    assert service_file.read(embedded.data_dir) is None


async def test_a_killed_database_is_brought_back(embedded: Stack) -> None:
    process = embedded.up()
    await _started(process, embedded)
    killed = supervisor_pid(embedded.data_dir), server_pid(embedded.data_dir)
    for pid in killed:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: server_pid(embedded.data_dir) not in (killed[1], None))
    await eventually(lambda: answers(embedded.data_dir))
    process.terminate()
    assert process.wait(timeout=60) == 0
    await eventually(lambda: nothing_runs(embedded.data_dir))


async def test_a_killed_up_takes_everything_along_and_can_be_started_again(embedded: Stack) -> None:
    process = embedded.up()
    await _started(process, embedded)
    process.kill()
    await eventually(embedded.diary.all_gone)
    await eventually(lambda: nothing_runs(embedded.data_dir))
    assert service_file.read(embedded.data_dir) is None
    again = embedded.up()
    assert _line(again) == "prepared"
    assert _line(again).startswith("http://")
    again.terminate()
    assert again.wait(timeout=60) == 0


async def test_a_killed_worker_comes_back(stack: Stack) -> None:
    process = stack.up()
    await _started(process, stack)
    await eventually(lambda: stack.diary.events().count("start worker") == 2)
    os.kill(stack.diary.pids("start worker")[0], signal.SIGKILL)
    await eventually(lambda: stack.diary.events().count("start worker") == 3)
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert stack.diary.all_gone()


async def test_a_second_up_is_refused_with_the_address(stack: Stack) -> None:
    process = stack.up()
    url = await _started(process, stack)
    second = stack.up()
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert said == f"crawlscope: already running at {url}\n"
    process.terminate()
    assert process.wait(timeout=60) == 0


async def test_wrong_settings_of_a_child_are_reported(stack: Stack) -> None:
    process = stack.up(api=command("fail", "2"))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1] == "crawlscope: api: something is wrong here"
    assert stack.diary.all_gone()


async def test_a_signal_while_it_starts(stack: Stack) -> None:
    process = stack.up(api=command("work", "mute api"))
    assert _line(process) == "prepared"
    await eventually(lambda: set(stack.diary.events()) == {"start index", "start mute api"})
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert stack.diary.events()[2:] == ["stop mute api", "stop index"]


async def test_workers_that_the_server_has_no_connections_for_are_not_started(
    tmp_path: Path, own_database_url: str
) -> None:
    owner = Database.open(own_database_url)
    room_for_two = connections.needed(2)
    async with owner.transaction() as connection:
        name = await connection.scalar(text("SELECT quote_ident(current_database())"))
        await connection.execute(text(f"ALTER DATABASE {name} CONNECTION LIMIT {room_for_two}"))
    await owner.close()
    stack = Stack(tmp_path, DATABASE_URL=own_database_url, WORKERS="5")
    try:
        process = stack.up()
        await _started(process, stack)
        await eventually(lambda: stack.diary.events().count("start worker") == 2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        stack.close()
    assert stack.diary.events().count("start worker") == 2
    assert "workers_limited" in said
    assert f"allows this user {room_for_two} connections and {connections.needed(5)} are needed" in said


async def test_with_a_qdrant_server_there_is_no_index_process(tmp_path: Path) -> None:
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "QDRANT_URL": "http://127.0.0.1:1"}
    stack = Stack(tmp_path, **nowhere)
    try:
        process = stack.up()
        await eventually(lambda: {"start worker", "start crawler"} <= set(stack.diary.events()))
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        stack.close()
    assert "start index" not in stack.diary.events()
