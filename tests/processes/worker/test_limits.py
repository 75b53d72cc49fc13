"""A process that exceeds its time or memory limit ends, whatever code it runs."""

import faulthandler
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from crawlscope.processes.worker.index_pages import deadlines
from crawlscope.processes.worker.process import MEMORY_EXIT_CODE

HOLDS_THE_INTERPRETER = """
import re, sys
from pathlib import Path
from crawlscope.processes.worker.index_pages import deadlines
with deadlines(0.5, Path(sys.argv[1])) as limits:
    with limits.page():
        pass
    with limits.page():
        re.match("(a+)+$", "a" * 60 + "b")
"""
IN_TIME = """
import sys, time
from pathlib import Path
from crawlscope.processes.worker.index_pages import deadlines
with deadlines(1.0, Path(sys.argv[1])) as limits:
    for _ in range(4):
        with limits.page():
            time.sleep(0.3)
    time.sleep(1.2)
"""
TAKES_MEMORY = """
import sys, time
from crawlscope.core import logs
from crawlscope.processes.worker.process import watch_memory
logs.configure("INFO", "indexworker")
watch_memory(int(sys.argv[1]))
taken = bytearray(b"x") * (300 << 20)
time.sleep(int(sys.argv[2]))
"""
WITHOUT_A_DATABASE = """
import asyncio, sys, threading
from pathlib import Path
from crawlscope.database.engine import Database
from crawlscope.core.settings import Settings
from crawlscope.processes.worker import process
rounds = 0
async def again_at_once(stopping, seconds):
    global rounds
    rounds += 1
    if rounds == 4:
        stopping.set()
process._wait = again_at_once
async def work():
    url, stopping = "postgresql://u@127.0.0.1:1/x", asyncio.Event()
    settings = Settings(data_dir=Path(sys.argv[1]), database_url=url)
    await process._run_kind("index", settings, Database.open(url), stopping)
    print("watchers", [thread.name for thread in threading.enumerate()].count("memory"))
asyncio.run(work())
"""


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_overdue_page_ends_the_process_also_in_native_code(tmp_path: Path) -> None:
    assert run(HOLDS_THE_INTERPRETER, str(tmp_path / "logs")).returncode == 1
    assert "re/__init__.py" in (tmp_path / "logs" / "stuck-pages.log").read_text()


def test_the_process_has_as_long_as_the_page_that_ends_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, armed = 0.0, list[float | None]()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda left, **_: armed.append(now + left))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: armed.append(None))
    first, second, third = ExitStack(), ExitStack(), ExitStack()
    with deadlines(10.0, tmp_path) as limits:
        first.enter_context(limits.page())
        now = 1.0
        second.enter_context(limits.page())
        now = 2.0
        third.enter_context(limits.page())
        assert armed == [10.0]
        second.close()
        assert armed == [10.0], "the first one still ends first"
        first.close()
        assert armed == [10.0, 12.0]
        third.close()
        assert armed == [10.0, 12.0, None]
        with limits.page():
            assert armed == [10.0, 12.0, None, 12.0]
        armed.clear()
        for now in (2.1, 2.5, 2.9):  # noqa: B007 - the time of the next page
            second.enter_context(limits.page())
        assert armed == [13.0], "pages that begin at about the same time end at the same time"
        second.close()


def test_pages_in_time_and_an_idle_worker_do_not(tmp_path: Path) -> None:
    assert run(IN_TIME, str(tmp_path)).returncode == 0


def test_too_much_memory_ends_the_process_with_a_log_event() -> None:
    ended = run(TAKES_MEMORY, str(200 << 20), "30")
    assert ended.returncode == MEMORY_EXIT_CODE
    assert "event=worker_memory_exceeded" in ended.stderr


def test_less_memory_does_not_and_no_limit_does_not() -> None:
    assert run(TAKES_MEMORY, str(2 << 30), "1").returncode == 0
    assert run(TAKES_MEMORY, "0", "0").returncode == 0


def test_one_thread_watches_the_memory_after_any_number_of_restarts(tmp_path: Path) -> None:
    ended = run(WITHOUT_A_DATABASE, str(tmp_path))
    assert ended.stdout.count("worker_paused") == 4
    assert ended.stdout.endswith("watchers 1\n")
