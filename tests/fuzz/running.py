"""Gives inputs to a target, one after the other, and finds crashes, hangs and growing memory."""

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.targets import TARGETS

CPU_SECONDS = 2.0
WALL_SECONDS = 60.0
"""On a machine that does other things too; the processor's time is the measure."""
GROWTH_MIB = 700
"""The maximum growth of the process over all inputs of a target: the largest decompressed body is 200 MiB."""


@dataclass
class Outcome:
    target: str
    inputs: int = 0
    slowest_cpu_seconds: float = 0.0
    growth_mib: float = 0.0
    findings: list[str] = field(default_factory=list)
    """Each with the number that repeats it."""


async def run(target: str, database_url: str, first: int, count: int, deadline: float) -> Outcome:
    """Inputs `first` to `first + count - 1`, or fewer if `deadline` (monotonic) comes before."""
    outcome, before = Outcome(target), _peak_mib()
    async with TARGETS[target](database_url) as try_one:
        for number in range(first, first + count):
            if time.monotonic() > deadline:
                break
            began = time.process_time()
            try:
                async with asyncio.timeout(WALL_SECONDS):
                    await try_one(Random(f"{target} {number}"))
            except Exception as error:  # noqa: BLE001 - every one is a finding
                outcome.findings.append(f"{target} {number}: {type(error).__name__}: {str(error)[:500]}")
            cpu_seconds = time.process_time() - began
            if cpu_seconds > CPU_SECONDS:
                outcome.findings.append(f"{target} {number}: {cpu_seconds:.1f} s of the processor")
            outcome.slowest_cpu_seconds = max(outcome.slowest_cpu_seconds, cpu_seconds)
            outcome.inputs += 1
    outcome.growth_mib = _peak_mib() - before
    if outcome.growth_mib > GROWTH_MIB:
        outcome.findings.append(f"{target}: the process has grown by {outcome.growth_mib:.0f} MiB")
    return outcome


@contextmanager
def limited_memory(extra_mib: int = 4 * GROWTH_MIB) -> Iterator[None]:
    """More than that raises `MemoryError` instead of filling the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (extra_mib << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
