"""Rebuilds segments of a shard in a process of its own, because the engine holds the interpreter meanwhile.

The engine writes to a segment that grows in memory. One that is frozen is read from its files, but a query
compares its vector with each of its chunks. One that is linked has a graph too, which takes fifteen times as
long to build.
"""

import asyncio
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from operator import attrgetter
from pathlib import Path
from typing import Self

import numpy as np

from crawlscope.core.errors import IndexUnusable
from crawlscope.indexing.index import rebuilding
from crawlscope.indexing.index.edge_shard import SEGMENTS
from crawlscope.indexing.index.fields import BM25, DENSE
from crawlscope.indexing.index.rebuilding import MAX_DELETED_SHARE

COMMAND = (sys.executable, "-P", "-m", rebuilding.__name__)
POLL_INTERVAL_SECONDS = 0.2
MIN_TO_FREEZE = 10_000
"""In memory, so many chunks take 20 MB."""
MIN_TO_FREEZE_IN_HASTE = 25_000
"""While chunks come fast: those that come during an optimisation are written twice. At its end, it takes
4.5 kB of memory a chunk, besides the 2 kB of the index process."""
MAX_SMALL_SEGMENTS = 8
"""Each costs a query 0.3 ms, and the loading of the shard 12 MB of flags."""
SMALL_CHUNKS = MIN_TO_FREEZE_IN_HASTE
"""Those that were frozen in haste are merged only when they are linked: eight of them would take too long."""
MIN_TO_LINK = 20_000
"""A query compares its vector with so many in 1.4 ms."""
MAX_LINKED_CHUNKS = 100_000
"""The size of a segment: at its end, a rebuild takes 2.4 kB of memory a chunk."""
COPIED_AT_ONCE = 1 << 20
SPACE = 3
"""Free disk space that is needed, in sizes of the segments."""
REPLACED = "replaced"
NEVER_CHANGED = (
    "matrix.dat",
    "page_*.dat",
    "inverted_index.dat",
    "links_compressed.bin",
    "flags_*.dat",
)
"""The large files of a segment that does not grow: chunks are deleted from it in others."""


class Goal(StrEnum):
    FROZEN = "frozen"
    LINKED = "linked"


NEIGHBOURS = {Goal.FROZEN: 0, Goal.LINKED: 16}
"""Links of a chunk in the graph."""
NICE = {Goal.FROZEN: 5, Goal.LINKED: 19}
"""Workers have 5: chunks come from them no faster than they are frozen."""


@dataclass(frozen=True)
class Segment:
    folder: Path
    grows: bool
    is_linked: bool
    rows: int
    """Its chunks, with those that were deleted."""
    deleted: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        config = json.loads((folder / "segment.json").read_bytes())["config"]
        flags = [np.fromfile(file, np.uint8) for file in folder.glob("id_tracker.deleted")]
        return cls(
            folder,
            grows=config["sparse_vector_data"][BM25]["index"]["index_type"] == "MutableRam",
            is_linked=config["vector_data"][DENSE]["index"]["options"].get("m", 0) > 0,
            rows=sum(file.stat().st_size for file in folder.glob("*id_tracker.versions")) // 8,
            deleted=sum(int(np.unpackbits(each).sum()) for each in flags),
        )

    @property
    def chunks(self) -> int:
        return self.rows - self.deleted

    @property
    def lacks_links(self) -> bool:
        """Also if many chunks were deleted: the way through the graph leads over them."""
        return not self.is_linked or self.deleted > self.rows * MAX_DELETED_SHARE


def due(path: Path, goal: Goal, others: Container[Path] = (), in_haste: bool = False) -> list[Segment]:
    """The segments of a shard that are to be rebuilt as one, if there are enough; none of the `others`.

    `in_haste`: chunks come so fast that only memory is a reason to begin.
    """
    folders = (file.parent for file in (path / SEGMENTS).glob("*/segment.json"))
    free = (Segment.of(folder) for folder in folders if folder not in others)
    segments = sorted(free, key=attrgetter("chunks"))
    frozen = [each for each in segments if not each.grows]
    unlinked = [each for each in frozen if each.lacks_links]
    if goal is Goal.FROZEN:
        at_least = MIN_TO_FREEZE_IN_HASTE if in_haste else MIN_TO_FREEZE
        growing = [each for each in segments if each.grows and each.rows >= at_least]
        small = [each for each in unlinked if each.rows < SMALL_CHUNKS]
        return [*growing, *small] if growing and len(small) >= MAX_SMALL_SEGMENTS else growing
    if in_haste or sum(each.rows for each in unlinked) < MIN_TO_LINK:
        return []
    chosen = unlinked[:1]
    for each in [*unlinked[1:], *(each for each in frozen if not each.lacks_links)]:
        if sum(one.chunks for one in chosen) + each.chunks > MAX_LINKED_CHUNKS:
            break
        chosen.append(each)
    return chosen


def has_space(path: Path, segments: Sequence[Segment]) -> bool:
    return shutil.disk_usage(path).free > SPACE * sum(bytes_on_disk(each.folder) for each in segments)


def bytes_on_disk(path: Path) -> int:
    """The blocks that the files occupy: the engine makes some far larger than their content."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # a log file that the engine has just dropped
                total += Path(folder, name).stat().st_blocks * 512
    return total


def copy_of(path: Path, goal: Goal) -> Path:
    return path.with_name(f"{path.name}.{goal}")


def finished(path: Path, goal: Goal) -> Path:
    """A copy whose segments are about to replace those that it was made of."""
    return path.with_name(f"{path.name}.{goal}-finished")


def make_copy(path: Path, goal: Goal, segments: Sequence[Segment]) -> Path:
    """A shard with these segments alone. Its log continues the numbers of the changes, or the engine would
    take further ones for old.
    """
    copy = copy_of(path, goal)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns(SEGMENTS), copy_function=_copy)
    for each in segments:
        duplicate = _copy if each.grows else _link_or_copy
        shutil.copytree(each.folder, copy / SEGMENTS / each.folder.name, copy_function=duplicate)
    (copy / REPLACED).write_text("\n".join(each.folder.name for each in segments))
    return copy


def _link_or_copy(source: str, to: str) -> None:
    if any(fnmatch(Path(source).name, name) for name in NEVER_CHANGED):
        with suppress(OSError):  # a file system without hard links
            os.link(source, to)
            return
    _copy(source, to)


def _copy(source: str, to: str) -> None:
    """Leaves out what was never written: the files of a small segment have 200 MB, and are mostly holes."""
    with Path(source).open("rb", buffering=0) as old, Path(to).open("wb", buffering=0) as new:
        new.truncate(os.fstat(old.fileno()).st_size)
        for start, stop in _data(old.fileno()):
            old.seek(start)
            new.seek(start)
            while (left := stop - old.tell()) > 0:
                new.write(old.read(min(COPIED_AT_ONCE, left)))


def _data(file: int) -> Iterator[tuple[int, int]]:
    """Starts and ends of the data between the holes of a file."""
    stop = 0
    while True:
        try:
            start = os.lseek(file, stop, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # there is none after this
                raise
            return
        stop = os.lseek(file, start, os.SEEK_HOLE)
        yield start, stop


def read_flags(path: Path) -> None:
    """Reads what the engine drops from the memory when it closes a shard, and maps page by page when it loads
    one: that takes four times as long.
    """
    for file in (path / SEGMENTS).rglob("flags_*.dat"):
        file.read_bytes()


def newest_change(path: Path) -> int:
    """The number of the last change of a shard that was flushed."""
    files = (path / SEGMENTS).glob("*/segment.json")
    return max(json.loads(file.read_bytes())["version"] or 0 for file in files)


def replaced_in(copy: Path) -> list[str]:
    return (copy / REPLACED).read_text().split()


def finish(path: Path, goal: Goal) -> None:
    """From now on, the copy's segments count: this process, or the next one, completes `install`."""
    copy = copy_of(path, goal)
    replaced = replaced_in(copy)
    for folder in list((copy / SEGMENTS).iterdir()):
        if folder.name in replaced:
            raise IndexUnusable(f"the engine did not rebuild {folder}")
        if goal is Goal.LINKED and Segment.of(folder).grows:
            shutil.rmtree(folder)
    copy.rename(finished(path, goal))


def install(path: Path) -> None:
    """Puts the segments of finished copies in the place of those that they replace. Nobody may have the shard
    open. Can be repeated after a kill.
    """
    for goal in Goal:
        if (new := finished(path, goal)).exists():
            for folder in [path / SEGMENTS / name for name in replaced_in(new)]:
                if folder.exists():
                    folder.rename(new / folder.name)
            for folder in list((new / SEGMENTS).iterdir()):
                folder.rename(path / SEGMENTS / folder.name)
            new.rename(copy_of(path, goal))


def clean_up(path: Path) -> None:
    """Deletes what a killed process has left. Only the owner of the shard may do this."""
    for goal in Goal:
        for left in copy_of(path, goal), finished(path, goal):
            shutil.rmtree(left, ignore_errors=True)


def command(copy: Path, dimension: int, goal: Goal) -> tuple[str, ...]:
    return (*COMMAND, str(copy), *map(str, (dimension, NEIGHBOURS[goal], NICE[goal])))


async def optimize(copy: Path, dimension: int, goal: Goal, wanted: Callable[[], bool]) -> bool:
    """False if it is not `wanted` any more. Raises `IndexUnusable` if it failed."""
    process = await asyncio.create_subprocess_exec(
        *command(copy, dimension, goal), stdin=asyncio.subprocess.DEVNULL
    )
    ending = asyncio.ensure_future(process.wait())
    try:
        while wanted() and not ending.done():
            await asyncio.wait({ending}, timeout=POLL_INTERVAL_SECONDS)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        status = await ending
    if status and wanted():
        raise IndexUnusable(f"{copy} could not be optimised")
    return wanted()
