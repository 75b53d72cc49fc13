"""Processes are started in order, restarted when they die, and stopped in reverse; none is left."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from crawlscope.core import restarts
from crawlscope.core.errors import GaveUp
from crawlscope.processes.supervisor import supervisor as supervision
from crawlscope.processes.supervisor.supervisor import Exit, Process, Supervisor
from tests.processes.supervisor.support import Diary, command
from tests.support.polling import eventually


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path)


def _working(diary: Diary, name: str) -> Process:
    return Process(name, command("work", name), diary.env)


def _awaited(diary: Diary, name: str) -> Process:
    async def ready() -> bool:
        return f"start {name}" in diary.events()

    return Process(name, command("work", name), diary.env, ready)


async def test_a_killed_process_comes_back_and_its_end_is_reported(diary: Diary) -> None:
    ends: list[Exit] = []
    supervisor = Supervisor([_awaited(diary, "one")], on_exit=ends.append)
    await supervisor.start()
    first = supervisor.pid("one")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: diary.events().count("start one") == 2)
    assert supervisor.pid("one") not in (first, None)
    await supervisor.stop()
    assert [(end.name, end.how, end.asked_for) for end in ends] == [
        ("one", "SIGKILL", False),
        ("one", "exit code 0", True),
    ]
    assert ends[0].pid == first
    assert ends[0].began_at < ends[0].ended_at < ends[1].ended_at
    assert diary.all_gone()


async def test_what_others_need_starts_first_and_stops_last(diary: Diary) -> None:
    supervisor = Supervisor([_awaited(diary, "api"), _awaited(diary, "a"), _awaited(diary, "b")])
    await supervisor.start()
    assert diary.events() == ["start api", "start a", "start b"]
    await supervisor.stop()
    assert diary.events()[3:] == ["stop b", "stop a", "stop api"]
    assert diary.all_gone()


async def test_processes_that_nobody_waits_for_are_stopped_together(diary: Diary) -> None:
    names = ["a", "b", "c"]
    supervisor = Supervisor([_awaited(diary, "api"), *[_working(diary, name) for name in names]])
    await supervisor.start()
    await eventually(lambda: len(diary.events()) == 4)
    await supervisor.stop()
    assert diary.events()[-1] == "stop api"
    assert sorted(diary.events()[4:-1]) == ["stop a", "stop b", "stop c"]


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(diary: Diary) -> None:
    ends: list[Exit] = []
    supervisor = Supervisor(
        [Process("deaf", command("stubborn"), diary.env)],
        on_exit=ends.append,
        grace_seconds=0.3,
    )
    await supervisor.start()
    await eventually(lambda: diary.events() == ["start stubborn"])
    await supervisor.stop()
    assert [end.code for end in ends] == [-signal.SIGKILL]
    assert diary.all_gone()


async def test_wrong_settings_end_everything_with_the_reason(diary: Diary) -> None:
    supervisor = Supervisor([_awaited(diary, "good"), Process("bad", command("fail", "2"), diary.env)])
    await supervisor.start()
    with pytest.raises(GaveUp, match=r"^bad: something is wrong here$"):
        await supervisor.wait()
    assert diary.events().count("start fail") == 1
    assert diary.all_gone()


async def test_settings_that_have_worked_end_nothing(diary: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their server answers otherwise than before: that can pass."""
    monkeypatch.setattr(restarts, "STEADY_SECONDS", 0.0)
    supervisor = Supervisor([_awaited(diary, "good"), Process("bad", command("fail", "2"), diary.env)])
    await supervisor.start()
    await eventually(lambda: diary.events().count("start fail") == 2)
    await supervisor.stop()
    assert diary.events().count("start good") == 1


@pytest.mark.parametrize(
    ("code", "starts", "reason"),
    [("1", 3, r"failed 3 times to start \(exit code 1\)"), ("2", 1, "bad")],
)
async def test_failures_before_it_was_ever_ready_end_everything(
    diary: Diary, monkeypatch: pytest.MonkeyPatch, code: str, starts: int, reason: str
) -> None:
    """However long each start takes, as on a busy machine."""
    monkeypatch.setattr(restarts, "STEADY_SECONDS", 0.0)

    async def never() -> bool:
        return False

    bad = Process("bad", command("fail", code), diary.env, never)
    supervisor = Supervisor([_awaited(diary, "good"), bad])
    with pytest.raises(GaveUp, match=f"{reason}: something is wrong here"):
        await supervisor.start()
    assert diary.events().count("start fail") == starts
    assert diary.all_gone()


async def test_not_ready_in_time_counts_as_a_failure(diary: Diary) -> None:
    async def never() -> bool:
        return False

    process = Process("slow", command("work", "slow"), diary.env, never, ready_timeout_seconds=0.3)
    with pytest.raises(GaveUp, match=r"slow failed 3 times .*not ready after 0\.3 seconds"):
        await Supervisor([process]).start()


async def test_a_process_that_dies_at_once_is_tried_again_ever_more_slowly(
    diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_DELAY_SECONDS", 0.01)
    supervisor = Supervisor([Process("bad", command("fail", "1"), diary.env)])
    await supervisor.start()
    await eventually(lambda: diary.events().count("start fail") >= 6)
    await supervisor.stop()


async def test_a_program_that_does_not_exist(diary: Diary) -> None:
    async def ready() -> bool:
        return True

    supervisor = Supervisor([Process("ghost", ["/no/such/program"], diary.env, ready)])
    with pytest.raises(GaveUp, match="ghost cannot be started"):
        await supervisor.start()


async def test_watchers_are_called_and_may_fail(diary: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "WATCH_INTERVAL_SECONDS", 0.01)
    calls = {"good": 0, "bad": 0}

    async def good() -> None:
        calls["good"] += 1

    async def bad() -> None:
        calls["bad"] += 1
        raise RuntimeError("as always")

    supervisor = Supervisor([_working(diary, "one")], watch=[good, bad])
    await supervisor.start()
    await eventually(lambda: min(calls.values()) > 3)
    await supervisor.stop()


async def test_stderr_is_passed_on(diary: Diary, capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = Supervisor([Process("bad", command("fail", "2"), diary.env)])
    await supervisor.start()
    with pytest.raises(GaveUp):
        await supervisor.wait()
    assert "something is wrong here\n" in capfd.readouterr().err


async def test_stopping_while_it_starts(diary: Diary) -> None:
    async def never() -> bool:
        return False

    supervisor = Supervisor(
        [Process("slow", command("work", "slow"), diary.env, never), _working(diary, "next")]
    )
    starting = asyncio.create_task(supervisor.start())
    await eventually(lambda: diary.events() == ["start slow"])
    starting.cancel()
    await supervisor.stop()
    assert diary.events() == ["start slow", "stop slow"]
    assert not [p for p in psutil.Process().children() if "child.py" in " ".join(p.cmdline())]


def test_files_of_the_folder_do_not_stand_in_for_modules(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('this is another queue')\n")

    subprocess.run([*supervision.CRAWLSCOPE, "--help"], cwd=tmp_path, capture_output=True, check=True)
