"""Runs the service for long at a rate that it can bear, and finds what grows that should not.

    python -m benchmarks.soak [--minutes 30] [--rate PAGES_PER_SECOND] [--seed N] [--folder FOLDER]

Recorded crawls of nine websites are replayed again and again, with an embedding server that answers at once.
After the first third every website is known; the verdicts are about the time from then on. Memory, open
files, connections, the queue, its tables, dead rows and the files of the index must not grow: of the straight
line through the samples, the least slope of the 95 % interval counts. The tables of records grow with what
they record. Writes soak.csv after each sample, soak.json and soak.svg at the end. The exit code is 1 if
something grew or a page was lost.
"""

import argparse
import asyncio
import csv
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chart import Chart, svg
from benchmarks.load import in_process
from benchmarks.part import Row, as_json, number, table
from benchmarks.processes import memory_mb, processes
from benchmarks.replay import Replay, Replayed, replay, rows
from benchmarks.service import API_SECRET, MeasuredService, instant_service
from benchmarks.traffic import RECORDED, Traffic
from benchmarks.trend import Trend, trend
from crawlscope.api.client import SECRET_HEADER

PART = "soak"
Sample = dict[str, float]
"""A value by group and series, for example `memory, MB: API`; `minute` is the time."""
TIME = "minute"
SAMPLES = 180
"""Over the whole time."""
WARM_UP = 1 / 3
MAX_GROWTH = 0.1
"""In an hour, as a share of the level."""
NEGLIGIBLE = {
    "memory, MB": 10.0,
    "open files": 20.0,
    "connections": 5.0,
    "oldest job, s": 30.0,
    "tables of the queue, MB": 10.0,
    "dead rows": 20_000.0,
    "files of the index, MB": 50.0,
}
"""The series that must not grow, and the growth in an hour that is too small to count at any level."""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
TABLES = """
SELECT schemaname AS schema, sum(pg_total_relation_size(relid)) / 1e6 AS mb,
       sum(n_dead_tup)::float AS dead
FROM pg_stat_user_tables WHERE schemaname IN ('webhook', 'queue') GROUP BY schemaname
"""
SCRAPED = {
    "crawlscope_queue_jobs": "jobs",
    "crawlscope_queue_oldest_job_age_seconds": "oldest job, s",
    "crawlscope_index_chunks": "chunks",
}


async def soak(traffic: Traffic, folder: Path) -> tuple[list[Sample], Replayed]:
    samples: list[Sample] = []
    async with instant_service() as service:
        sampling = asyncio.create_task(_sample_for_ever(service, samples, traffic.seconds / SAMPLES, folder))
        replayed = await in_process(_replay, Replay(service.url, API_SECRET, traffic))
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
    return samples, replayed


def _replay(given: Replay) -> Replayed:
    return asyncio.run(replay(given))


async def _sample_for_ever(
    service: MeasuredService, samples: list[Sample], interval_seconds: float, folder: Path
) -> None:
    began = time.monotonic()
    async with httpx2.AsyncClient(
        base_url=service.url, headers={SECRET_HEADER: API_SECRET}, timeout=60, trust_env=False
    ) as http:
        while True:
            with suppress(httpx2.HTTPError):  # a service without an answer has no sample
                sample = {TIME: (time.monotonic() - began) / 60} | await _sample(service, http)
                samples.append(sample)
                _write_csv(samples, folder / "soak.csv")
            await asyncio.sleep(interval_seconds - (time.monotonic() - began) % interval_seconds)


async def _sample(service: MeasuredService, http: httpx2.AsyncClient) -> Sample:
    sample = {f"memory, MB: {kind}": used for kind, used in memory_mb().items()}
    files: Counter[str] = Counter()
    for kind, process in processes():
        with suppress(psutil.Error):
            files[kind] += process.num_fds()
    sample |= {f"open files: {kind}": count for kind, count in files.items()}
    sample["connections: PostgreSQL"] = await service.database.fetchval(CONNECTIONS)
    for row in await service.database.fetch(TABLES):
        kind = "tables of the queue" if row["schema"] == "queue" else "tables of records"
        sample[f"{kind}, MB: {row['schema']}"] = float(row["mb"])
        sample[f"dead rows: {row['schema']}"] = row["dead"]
    sizes = (
        path.stat().st_blocks * 512 for path in (service.data_dir / "index").rglob("*") if path.is_file()
    )
    sample["files of the index, MB: index"] = sum(sizes) / 1e6
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        for each in family.samples:
            if (group := SCRAPED.get(each.name)) and each.labels.get("queue", "index_page") == "index_page":
                sample[f"{group}: {each.labels.get('state', 'pages')}"] = each.value
    return sample


def _write_csv(samples: Sequence[Sample], file: Path) -> None:
    names = list(dict.fromkeys(name for sample in samples for name in sample))
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, names)
        writer.writeheader()
        writer.writerows({name: round(value, 3) for name, value in sample.items()} for sample in samples)


def read_csv(file: Path) -> list[Sample]:
    with file.open(newline="", encoding="utf-8") as opened:
        return [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(opened)
        ]


def verdicts(samples: Sequence[Sample]) -> list[Row]:
    """A row for each series, judged where it must not grow; of the time after the warm-up."""
    begins = samples[-1][TIME] * WARM_UP
    late = [sample for sample in samples if sample[TIME] >= begins]
    return [
        _verdict(name, trend([(sample[TIME] / 60, sample[name]) for sample in late if name in sample]))
        for name in late[-1]
        if name != TIME
    ]


def _verdict(name: str, found: Trend) -> Row:
    negligible = NEGLIGIBLE.get(name.partition(":")[0])
    limit = None if negligible is None else max(MAX_GROWTH * found.level, negligible)
    against = f"{number(found.growth)} ± {number(found.uncertainty)}, level {number(found.level)}"
    return Row(PART, name, found.at_least, "more an hour", against, at_most=limit)


def charts(samples: Sequence[Sample]) -> list[Chart]:
    groups: defaultdict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for name, value in sample.items():
            if name != TIME:
                group, _, series = name.partition(": ")
                groups[group][series].append((sample[TIME], value))
    return [Chart(group, lines, "minutes") for group, lines in groups.items()]


def main() -> None:
    given = _parser().parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    traffic = Traffic(given.seed, given.rate, 60 * given.minutes, sites=len(RECORDED))
    samples, replayed = asyncio.run(soak(traffic, given.folder))
    measured = [*rows(replayed, traffic), *verdicts(samples)]
    print(table(measured))
    (given.folder / "soak.json").write_text(
        json.dumps(as_json(measured), indent=1, ensure_ascii=False) + "\n"
    )
    (given.folder / "soak.svg").write_text(svg(charts(samples)))
    sys.exit(any(row.met is False for row in measured))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=2.0, help="pages a second, below saturation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("soak"), help="for what was measured")
    return parser


if __name__ == "__main__":
    main()
