"""Measures what a page demands of each part of the service, which the model of `benchmarks.scaling` needs.

python -m benchmarks.demands [--quick] [--pages N] [--rounds N] [--json FILE]
"""

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import psutil

from benchmarks.cpu import LOGGED
from benchmarks.instant_embedder import DIMENSION
from benchmarks.load import Load
from benchmarks.pages import Site
from benchmarks.part import Options, Row, run_alone
from benchmarks.processes import processes
from benchmarks.service import MeasuredService, instant_service
from benchmarks.storage import on_disk, tables_by_name
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.queue import CHANNELS, INDEX_PAGE
from crawlscope.indexing.index import optimizing
from crawlscope.indexing.index.optimizing import Goal

PART = "demands"
FILE = Path(__file__).with_name("demands.json")
LISTENERS, LISTENING_TURNS = 40, 3
COUNTED = """
SELECT (SELECT wal_bytes FROM pg_stat_wal)::float AS wal_bytes,
       (SELECT sum(chunks) FROM webhook.documents)::float AS chunks
"""
TIMED = {**LOGGED, "log_duration": "on", "log_line_prefix": "'%p %n '"}
_LINE = re.compile(r"^(\d+) (\d+\.\d+) LOG:  (.*?)(?=^\d+ \d+\.\d+ |\Z)", re.MULTILINE | re.DOTALL)
_LOCKS_CRAWL = re.compile(
    r"crawl_sessions\b.*FOR NO KEY UPDATE|UPDATE\s+webhook\.crawl_sessions\b", re.DOTALL
)
_ENDS = re.compile(r": (COMMIT|ROLLBACK)\b(?! TO)")


@dataclass(frozen=True)
class Demands:
    """The demands of a page."""

    characters: int
    """The median of their Markdown."""
    chunks: float
    wal_bytes: float
    table_bytes: dict[str, float]
    index_bytes: float
    crawl_locked_ms: float
    """The median time for which a transaction holds the row of its crawl."""
    pages_at_a_time: float
    """Settled by one such transaction."""
    optimize_ms: float
    """CPU time of the engine's optimisation, which follows when nothing is written."""
    beside_ms: float
    """CPU time outside the service: of the sender, and of the embedding server that answers at once."""
    listening_ms: dict[str, float]
    """CPU time of PostgreSQL and of a worker for each worker, as all workers are notified of each new job."""


def read() -> Demands:
    return Demands(**json.loads(FILE.read_text(encoding="utf-8")))


async def measure(options: Options) -> Sequence[Row]:
    load = Load("sizes", options.pages_or(400, 60))
    async with instant_service(WORKERS="2") as service:
        before, beside = await _stored(service), _cpu_beside()
        await service.ingest(load)
        beside = _cpu_beside() - beside
        after = await _stored(service)
        grown = {name: (size - before.get(name, 0)) / load.pages for name, size in after.items()}
        listening_ms = await _listening_ms(service, load.pages // 4)
        held = await _crawl_locked_ms(service, locking := Load("locking", load.pages // 2))
        optimize_ms = _optimize_ms(service.data_dir / "index") / (await _stored(service))["chunks"]
    site = Site(load.website)
    demands = Demands(
        characters=int(statistics.median(len(site.markdown(number)) for number in range(load.pages))),
        chunks=grown["chunks"],
        wal_bytes=grown["wal_bytes"],
        table_bytes={name: size for name, size in sorted(grown.items()) if "." in name and size > 0},
        index_bytes=grown["index"],
        crawl_locked_ms=statistics.median(held),
        pages_at_a_time=locking.pages / len(held),
        optimize_ms=optimize_ms * grown["chunks"],
        beside_ms=1000 * beside / load.pages,
        listening_ms=listening_ms,
    )
    FILE.write_text(json.dumps(asdict(demands), indent=1) + "\n", encoding="utf-8")
    return _rows(demands)


async def _stored(service: MeasuredService) -> dict[str, float]:
    """Bytes of tables and index, and what was counted, of all pages until now."""
    counted = await service.database.fetchrow(COUNTED)
    return {
        **await tables_by_name(service),
        "index": on_disk(service.data_dir / "index"),
        **dict(counted or {}),
    }


def _cpu_beside() -> float:
    """CPU seconds of this process and its children, those that have ended included, without the service."""
    ours = {process.pid for _, process in processes()}
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in ours]
    return sum(os.times()[:4]) + sum(sum(child.cpu_times()[:2]) for child in children)


def _optimize_ms(index: Path) -> float:
    """CPU time of the optimisation of a copy, as the index process does it."""
    copy = Path(shutil.copytree(index, index.with_name("optimized")))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for goal in Goal:
        subprocess.run(optimizing.command(copy, DIMENSION, goal), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


async def _listening_ms(service: MeasuredService, pages: int) -> dict[str, float]:
    """The cost of each further listener for new jobs to a page: the listeners of this process do nothing
    else."""
    without, with_all = [], []
    for turn in range(LISTENING_TURNS):
        without.append(await _cost_of_listeners(service, Load(f"alone-{turn}", pages), 0))
        with_all.append(await _cost_of_listeners(service, Load(f"listeners-{turn}", pages), LISTENERS))
    means = [
        [statistics.fmean(column) for column in zip(*turns, strict=True)] for turns in (without, with_all)
    ]
    postgres, listener = ((more - less) / LISTENERS for less, more in zip(*means, strict=True))
    return {"PostgreSQL": max(0.0, postgres), "workers": max(0.0, listener)}


async def _cost_of_listeners(service: MeasuredService, load: Load, listeners: int) -> tuple[float, float]:
    """Milliseconds of a page: of PostgreSQL, and of this process."""
    url = EmbeddedPostgres(service.data_dir).url
    connections = [await asyncpg.connect(url) for _ in range(listeners)]
    for connection in connections:
        await connection.add_listener(CHANNELS[INDEX_PAGE], lambda *_: None)
    began = time.process_time()
    ingested = await service.ingest(load)
    used = time.process_time() - began
    for connection in connections:
        await connection.close()
    return ingested.cpu_ms("PostgreSQL"), 1000 * used / load.pages


async def _crawl_locked_ms(service: MeasuredService, load: Load) -> list[float]:
    """The time of each transaction from the first lock of a crawl's row to the end."""
    log = service.data_dir / "postgres" / "log"
    for name, value in TIMED.items():
        await service.database.execute(f"ALTER SYSTEM SET {name} = {value}")
    await service.database.execute("SELECT pg_reload_conf()")
    began = log.stat().st_size
    await service.ingest(load)
    return locked_ms(log.read_bytes()[began:].decode(errors="replace"))


def locked_ms(log: str) -> list[float]:
    """From lines `PID SECONDS LOG:  …` of statements, each followed by the line with its duration."""
    running: dict[str, str] = {}
    locked: dict[str, float] = {}
    held = []
    for process, seconds, message in _LINE.findall(log):
        if not message.startswith("duration"):
            running[process] = message
        elif _LOCKS_CRAWL.search(statement := running.pop(process, "")):
            locked.setdefault(process, float(seconds))
        elif _ENDS.search(statement) and process in locked:
            held.append(1000 * (float(seconds) - locked.pop(process)))
    return held


def _rows(demands: Demands) -> list[Row]:
    return [
        Row(PART, "write-ahead log of a page", demands.wal_bytes / 1000, "kB"),
        Row(PART, "tables of a page", sum(demands.table_bytes.values()) / 1000, "kB"),
        Row(PART, "index of a page", demands.index_bytes / 1000, "kB", f"{demands.chunks:.0f} chunks"),
        Row(PART, "optimisation of the index, of a page", demands.optimize_ms, "ms"),
        Row(PART, "CPU of a page outside the service", demands.beside_ms, "ms"),
        *(
            Row(PART, f"CPU of a page for each worker that listens, {kind}", value * 1000, "µs")
            for kind, value in demands.listening_ms.items()
        ),
        Row(
            PART,
            "row of a crawl locked",
            demands.crawl_locked_ms,
            "ms",
            f"{demands.pages_at_a_time:.1f} pages",
        ),
    ]


if __name__ == "__main__":
    run_alone(measure, __doc__)
