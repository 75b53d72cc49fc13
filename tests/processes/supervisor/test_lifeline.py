"""Children end with their parent, however it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crawlscope.processes.supervisor.lifeline import VARIABLE, Lifeline, follow_parent
from tests.processes.supervisor.support import Diary, command
from tests.support.polling import eventually

PARENT = """
import json, os, subprocess, sys, time
from crawlscope.processes.supervisor.lifeline import Lifeline
lifeline = Lifeline()
for argv in json.loads(sys.argv[1]):
    subprocess.Popen(argv, env={**os.environ, **lifeline.environment}, pass_fds=lifeline.descriptors)
time.sleep(60)
"""


def start_parent(commands: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PARENT, commands], env=env)


@pytest.mark.parametrize("kind", ["work", "stubborn", "grandparent"])
async def test_children_of_a_killed_parent_are_gone_within_seconds(tmp_path: Path, kind: str) -> None:
    diary = Diary(tmp_path)
    commands = json.dumps([command(kind), command("work")])
    parent = start_parent(commands, diary.env)
    await eventually(lambda: {f"start {kind}", "start work"} <= set(diary.events()))
    parent.kill()
    parent.wait()
    await eventually(diary.all_gone, seconds=30)  # by themselves they would end after 60
    assert "leak" not in diary.events()


def test_without_a_lifeline_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not follow_parent()
    with (tmp_path / "file").open("w") as file:
        for stray in ("", "x", "987654", str(file.fileno())):
            monkeypatch.setenv(VARIABLE, stray)
            assert not follow_parent()
            assert VARIABLE not in os.environ


def test_closing_twice_is_harmless() -> None:
    lifeline = Lifeline()
    lifeline.close()
    lifeline.close()
