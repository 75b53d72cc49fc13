"""The cost of a running service's processes, by kind: CPU time and memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from crawlscope.indexing.index import rebuilding

ALL, MAPPED = "all", "mapped files"
INDEX, OPTIMISATION = "index", "index, optimisation"
KINDS = {"up": "supervisor", "serve": "API", "index": INDEX}


def processes() -> Iterator[tuple[str, psutil.Process]]:
    """The kind and the process: `crawlscope up`, which this process has started, and all below it."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if _arguments(child)[:1] == ["up"]:
                for process in (child, *child.children(recursive=True)):
                    with suppress(psutil.Error):
                        yield _kind(process), process


def _arguments(process: psutil.Process) -> list[str]:
    """Those after `python -m crawlscope`, of a command of the service."""
    command = process.cmdline()
    return command[command.index("crawlscope") + 1 :] if "crawlscope" in command[:5] else []


def _kind(process: psutil.Process) -> str:
    match _arguments(process):
        case ["worker", *options]:
            return "crawler" if "crawl" in options else "workers"
        case [name, *_] if name in KINDS:
            return KINDS[name]
    return INDEX if _optimises(process) else "PostgreSQL"


def _optimises(process: psutil.Process) -> bool:
    return rebuilding.__name__ in process.cmdline()


def cpu_seconds() -> Counter[str]:
    """With the processes that have ended meanwhile: they count for the one that started them. Those of the
    index process optimise it.
    """
    used: Counter[str] = Counter()
    for kind, process in processes():
        with suppress(psutil.Error):
            times, optimises = process.cpu_times(), _optimises(process)
            used[OPTIMISATION if optimises else kind] += sum(times[:2])  # type: ignore[assignment]  # a float
            used[OPTIMISATION if kind == INDEX else kind] += sum(times[2:4])  # type: ignore[assignment]
    return used


def memory_mb() -> dict[str, float]:
    """Memory in use; a page of memory that several processes share is counted once.

    The content of files that are mapped is apart, under `MAPPED`: the system drops it where it needs memory.
    """
    used: defaultdict[str, float] = defaultdict(float)
    for kind, process in processes():
        own, mapped = memory_of(process)
        used[kind] += own
        used[MAPPED] += mapped
    return {**used, ALL: sum(used.values()) - used[MAPPED]}


def memory_of(process: psutil.Process) -> tuple[float, float]:
    """MB of its own, and of mapped files; nothing if it has ended."""
    own = mapped = 0.0
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            match line.split():
                case [("Pss_Anon:" | "Pss_Shmem:"), size, _]:
                    own += int(size) * 1024 / 1e6
                case ["Pss_File:", size, _]:
                    mapped += int(size) * 1024 / 1e6
    return own, mapped


def pids(kind: str) -> list[int]:
    return [process.pid for one, process in processes() if one == kind]
