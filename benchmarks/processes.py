"""The cost of a running service's processes, by kind: CPU time and memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress

import psutil

from crawlscope.indexing.index import optimizing

ALL = "all"
KINDS = {"up": "supervisor", "serve": "API", "index": "index"}


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
    return "index" if optimizing.__name__ in process.cmdline() else "PostgreSQL"


def cpu_seconds() -> Counter[str]:
    """With the processes that have ended meanwhile: they count for the one that started them."""
    used: Counter[str] = Counter()
    for kind, process in processes():
        with suppress(psutil.Error):
            used[kind] += sum(process.cpu_times()[:4])  # type: ignore[assignment]  # a float
    return used


def memory_mb() -> dict[str, float]:
    """Memory in use; a page of memory that several processes share is counted once."""
    used: defaultdict[str, float] = defaultdict(float)
    for kind, process in processes():
        with suppress(psutil.Error):
            used[kind] += process.memory_full_info().pss / 1e6
    return {**used, ALL: sum(used.values())}


def pids(kind: str) -> list[int]:
    return [process.pid for one, process in processes() if one == kind]
