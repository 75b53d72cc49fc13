"""Helpers of the tests of supervision."""

import os
import sys
from pathlib import Path

import psutil

CHILD = Path(__file__).with_name("child.py")


def command(kind: str, *arguments: str) -> list[str]:
    return [sys.executable, str(CHILD), kind, *arguments]


class Diary:
    """The notes of the children, in order."""

    def __init__(self, folder: Path) -> None:
        self.env = {**os.environ, "CHILD_FOLDER": str(folder)}
        self._file = folder / "events"

    def events(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in self._lines()]

    def pids(self, event: str) -> list[int]:
        return [int(line.rsplit(" ", 1)[1]) for line in self._lines() if line.startswith(f"{event} ")]

    def all_gone(self) -> bool:
        return not any(_lives(int(line.rsplit(" ", 1)[1])) for line in self._lines())

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
