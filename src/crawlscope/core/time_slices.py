"""Asks Linux for short time slices: a process that others wait for then gets a processor sooner.

From Linux 6.12 on, a process that wakes up with a shorter slice interrupts one that computes. It gets no
larger share of the processors. Without it, each process on the way of a delivery may wait for the end of a
slice of a worker, about three milliseconds.
"""

import ctypes
import os
import platform

SLICE_NANOSECONDS = 100_000
"""The shortest that Linux allows."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, which the C library has not everywhere."""


class SchedulingAttributes(ctypes.Structure):
    """`struct sched_attr` in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def use_short_time_slices() -> None:
    """Holds for this thread, and for the threads and processes that it starts. Other systems ignore it."""
    number = _SCHED_SETATTR.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return
    wanted = SchedulingAttributes(
        size=ctypes.sizeof(SchedulingAttributes), nice=os.nice(0), runtime=SLICE_NANOSECONDS
    )
    ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0)
