"""Processes that others wait for get short time slices, and the processes that they start, too."""

import ctypes
import os
import platform
import subprocess
import sys

import psutil
import pytest

from crawlscope.core.time_slices import SLICE_NANOSECONDS, SchedulingAttributes
from crawlscope.database.engine import Database

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
HAS_SLICES = platform.system() == "Linux" and tuple(map(int, platform.release().split(".")[:2])) >= (6, 12)
pytestmark = pytest.mark.skipif(not HAS_SLICES, reason="Linux has settable time slices since 6.12")


def attributes(pid: int) -> SchedulingAttributes:
    found = SchedulingAttributes()
    number, size = SCHED_GETATTR[platform.machine()], ctypes.sizeof(found)
    assert ctypes.CDLL(None).syscall(number, pid, ctypes.byref(found), size, 0) == 0
    return found


def test_a_process_and_its_children_get_short_slices_and_keep_their_priority() -> None:
    source = "import os, subprocess; from crawlscope.core.time_slices import use_short_time_slices as use"
    source += "; os.nice(3); use(); subprocess.run(['sleep', '60'])"
    started = psutil.Popen([sys.executable, "-c", source], stdout=subprocess.DEVNULL)
    try:
        while not (children := started.children()):
            pass
        found = [attributes(each.pid) for each in (started, *children)]
    finally:
        for each in (*started.children(), started):
            each.kill()
            each.wait()
    assert [(each.runtime, each.nice) for each in found] == [(SLICE_NANOSECONDS, os.nice(0) + 3)] * 2


async def test_the_embedded_database_has_short_slices(database: Database) -> None:
    async with database.transaction() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        assert attributes(raw.driver_connection.get_server_pid()).runtime == SLICE_NANOSECONDS
