"""Optimises a copy of a shard in a process of its own, because the engine holds the interpreter all the time.

python -m crawlscope.indexing.index.optimizing FOLDER
"""

import asyncio
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import qdrant_edge as engine

COMMAND = (sys.executable, "-P", "-m", __name__)
POLL_INTERVAL_SECONDS = 0.5
SPACE = 3
"""Free disk space that is needed, in sizes of the shard."""
LOWEST_PRIORITY = 19
PR_SET_PDEATHSIG = 1


def copy_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.copy")


def former_of(path: Path) -> Path:
    """The shard that an optimised one is about to replace."""
    return path.with_name(f"{path.name}.former")


def restore(path: Path) -> None:
    """Brings back the shard of a process that was killed while it replaced it."""
    if not path.exists() and former_of(path).exists():
        former_of(path).rename(path)


def clean_up(path: Path) -> None:
    """Deletes what a killed process has left. Only the owner of the shard may do this."""
    for left in (copy_of(path), former_of(path)):
        shutil.rmtree(left, ignore_errors=True)


def make_copy(path: Path) -> Path:
    copy = copy_of(path)
    try:
        return shutil.copytree(path, copy)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def has_space(path: Path, size_bytes: int) -> bool:
    return shutil.disk_usage(path).free > SPACE * size_bytes


@asynccontextmanager
async def optimized(copy: Path, wanted: Callable[[], bool]) -> AsyncIterator[bool]:
    """Optimises the copy, which is deleted at the end of the block.

    False if that failed, or is not `wanted` any more.
    """
    process = await asyncio.create_subprocess_exec(*COMMAND, str(copy), stdin=asyncio.subprocess.DEVNULL)
    ending = asyncio.ensure_future(process.wait())
    try:
        while wanted() and not ending.done():
            await asyncio.wait({ending}, timeout=POLL_INTERVAL_SECONDS)
        yield ending.done() and process.returncode == 0
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await ending
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)


def main(path: str) -> None:
    with suppress(AttributeError):  # Linux only; elsewhere it ends after its work
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(LOWEST_PRIORITY)
    shard = engine.EdgeShard.load(path)
    chunks = shard.count(engine.CountRequest())
    shard.optimize()
    if shard.count(engine.CountRequest()) != chunks:
        sys.exit("the engine lost chunks")
    shard.flush()
    shard.close()
    os.sync()  # a power failure finds the copied files too


if __name__ == "__main__":
    main(*sys.argv[1:])
