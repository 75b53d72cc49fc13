"""The limits of the service on many machines: a queueing model with the measurements of `benchmarks.demands`.

    python -m benchmarks.scaling [--picture FILE]

A worker has 16 pages in progress. Each page visits its worker, PostgreSQL, the index and the embedder,
and queues there. This closed network is solved by approximate mean value analysis (Schweitzer), several
servers as one fast server and a delay (Seidmann). Then hard limits apply: processes of the API, the disk of
the log, and the processors of a single machine. It prints the tables of docs/scaling.md.
"""

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import demands
from benchmarks.chart import Chart, svg
from benchmarks.demands import Demands
from benchmarks.part import number

PAGES_AT_ONCE = 16
"""The pages in progress of a worker."""
CONNECTIONS = {"serve": 24, "worker": 7}
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
PAGES = 10**8
PRECISION = 1e-6


@dataclass(frozen=True)
class Deployment:
    workers: int
    """The number of workers, with one processor each."""
    postgres_processors: float = 8
    index_processors: float = 8
    """Those of the Qdrant servers, or the shards of the embedded index."""
    api_processes: int = 2
    log_bytes_per_second: float = 200e6
    """The sustained rate of the disk with PostgreSQL's log."""
    embedder_pages_per_second: float = math.inf
    processors: float | None = None
    """The processors of the one machine that runs everything; None: each part has its own."""
    slower: float = 1.0
    """How much more CPU time a page takes there than where its demands were measured."""
    beside_seconds: float = 0.0
    """CPU time of a page outside the service on that machine: its sender, and an embedding server."""
    optimises: bool = True
    """Whether the index builds its graph meanwhile, as Qdrant servers do; the embedded one waits."""


@dataclass(frozen=True)
class Prediction:
    pages_per_second: float
    bound: str
    """The bottleneck."""
    busy: dict[str, float]
    """The share of each part that is in use."""


def predict(demands: Demands, deployment: Deployment) -> Prediction:
    seconds = demanded_seconds(demands, deployment)
    limits = dict(_limits(demands, deployment, seconds))
    rate = min(_circulating(deployment, seconds), *limits.values())
    bound = min(limits, key=limits.__getitem__)
    return Prediction(rate, bound, {part: rate / limit for part, limit in limits.items()})


def demanded_seconds(demands: Demands, deployment: Deployment) -> dict[str, float]:
    """CPU time of a page by part. All workers hear of each new job, so more of them make a page dearer."""
    listening = {part: cost * deployment.workers for part, cost in demands.listening_ms.items()}
    optimising = demands.optimize_ms if deployment.optimises else 0.0
    by_part = {
        "workers": CPU_MS["workers"] + listening["workers"],
        "PostgreSQL": CPU_MS["PostgreSQL"] + listening["PostgreSQL"],
        "index": CPU_MS["index"] + optimising,
        "API": CPU_MS["API"],
    }
    return {part: milliseconds * deployment.slower / 1000 for part, milliseconds in by_part.items()}


CPU_MS = {"workers": 14.8, "index": 4.4, "PostgreSQL": 3.1, "API": 1.1}
"""The CPU time of a page, without embedding: the result of `benchmarks.cpu` on an idle machine
(docs/performance.md)."""


def _limits(
    demands: Demands, deployment: Deployment, seconds: dict[str, float]
) -> Iterator[tuple[str, float]]:
    """Pages a second at which each part has no more to give."""
    yield "workers", deployment.workers / seconds["workers"]
    yield "PostgreSQL", deployment.postgres_processors / seconds["PostgreSQL"]
    yield "index", deployment.index_processors / seconds["index"]
    yield "API", deployment.api_processes / seconds["API"]
    yield "embedder", deployment.embedder_pages_per_second
    yield "disk of the log", deployment.log_bytes_per_second / demands.wal_bytes
    if deployment.processors is not None:
        yield "processors", deployment.processors / (sum(seconds.values()) + deployment.beside_seconds)


def _circulating(deployment: Deployment, seconds: dict[str, float]) -> float:
    """Pages a second of the closed network, where no limit but those of its queues applies."""
    servers = {"PostgreSQL": deployment.postgres_processors, "index": deployment.index_processors}
    shared = {part: (seconds[part] / count, count) for part, count in servers.items()}
    if math.isfinite(deployment.embedder_pages_per_second):
        shared["embedder"] = (1 / deployment.embedder_pages_per_second, 1.0)
    delay = sum(service * (count - 1) for service, count in shared.values())
    pages = PAGES_AT_ONCE * deployment.workers
    own, queues = PAGES_AT_ONCE / 2, dict.fromkeys(shared, pages / 4)
    rate = 0.0
    while True:
        at_worker = seconds["workers"] * (1 + own * (PAGES_AT_ONCE - 1) / PAGES_AT_ONCE)
        at_shared = {
            part: service * (1 + queues[part] * (pages - 1) / pages) for part, (service, _) in shared.items()
        }
        before, rate = rate, pages / (at_worker + delay + sum(at_shared.values()))
        own = rate / deployment.workers * at_worker
        queues = {part: rate * wait for part, wait in at_shared.items()}
        if abs(rate - before) < PRECISION * rate:
            return rate


VARIANTS = {
    "8 + 8": Deployment(1),
    "32 + 8": Deployment(1, postgres_processors=32),
    "32 + 128": Deployment(1, postgres_processors=32, index_processors=128),
    "128 + 2,048": Deployment(1, postgres_processors=128, index_processors=2048),
    "the same, faster log": Deployment(
        1, postgres_processors=128, index_processors=2048, log_bytes_per_second=2e9
    ),
}
"""Many machines, with processors of PostgreSQL + those of the index."""
WORKERS_OF_AN_API = 8
"""One process takes the deliveries of a dozen workers."""


def with_workers(variant: Deployment, workers: int) -> Deployment:
    return replace(variant, workers=workers, api_processes=max(2, workers // WORKERS_OF_AN_API))


@dataclass(frozen=True)
class Observed:
    """A measured deployment, to compare the prediction with."""

    name: str
    deployment: Deployment
    pages_per_second: tuple[float, float]
    """From and to."""


def observed(demands: Demands) -> list[Observed]:
    beside = demands.beside_ms / 1000
    small = Deployment(2, 2, 1, 1, processors=2, beside_seconds=beside, optimises=False)
    large = Deployment(16, 16, 4, 1, processors=16, optimises=False, slower=SLOWER)
    instant = replace(large, beside_seconds=SLOWER * beside)
    larger = demands.chunks * LARGE_PAGE_CHARACTERS / demands.characters
    with_model = replace(large, embedder_pages_per_second=BASE_CHUNKS_PER_SECOND / larger)
    return [
        Observed("2 processors, embedder that answers at once", small, (54, 54)),
        Observed("16 processors, embedder that answers at once", instant, (222, 229)),
        Observed("16 processors and a GPU, bge-base", with_model, (173, 203)),
    ]


LARGE_PAGE_CHARACTERS = 35_000
"""The size of the pages on those 16 processors."""
SLOWER = 2.2
"""CPU time of a worker for such a page there (31 to 34 ms), against a page of 21 kB on 2 processors."""
BASE_CHUNKS_PER_SECOND = 14_500
"""The rate of bge-base on that GPU, over HTTP without the service."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picture", type=Path, help="also draw the predictions to this file (SVG)")
    given = parser.parse_args()
    measured = demands.read()
    print("\n".join(tables(measured)))
    if given.picture:
        given.picture.write_text(svg(list(_charts(measured))), encoding="utf-8")


def tables(measured: Demands) -> list[str]:
    """The lines of docs/scaling.md that come from the model."""
    return [*_observed(measured), *_fleets(measured), *_sizes(measured)]


def _observed(measured: Demands) -> Iterator[str]:
    yield from ("| deployment | measured | model | error | bound by |", "| --- | --- | --- | --- | --- |")
    for each in observed(measured):
        found = predict(measured, each.deployment)
        middle = sum(each.pages_per_second) / 2
        between = " to ".join(map(number, dict.fromkeys(each.pages_per_second)))
        error = f"{100 * (found.pages_per_second / middle - 1):+.0f} %"
        yield f"| {each.name} | {between} | {number(found.pages_per_second)} | {error} | {found.bound} |"


def _fleets(measured: Demands) -> Iterator[str]:
    yield from ("| workers | " + " | ".join(VARIANTS) + " |", "| --- " * (len(VARIANTS) + 1) + "|")
    for workers in WORKERS:
        found = [predict(measured, with_workers(variant, workers)) for variant in VARIANTS.values()]
        cells = (f"{number(each.pages_per_second)}, {each.bound}" for each in found)
        yield f"| {workers:,} | {' | '.join(cells)} |"


NOT_OF_PAGES = re.compile(r"queue\.|webhook\.(index_words|processes|row_counts)$")
"""Tables that grow with the words of a language, or keep the jobs of a day."""
LISTED = 5


def _sizes(measured: Demands) -> Iterator[str]:
    yield from ("| | of a page | of 10⁸ pages |", "| --- | --- | --- |")
    tables = {
        re.sub(r"_\d{4}_\d\d$", "", name): size
        for name, size in measured.table_bytes.items()
        if not NOT_OF_PAGES.match(name)
    }
    largest = sorted(tables, key=lambda name: -tables[name])[:LISTED]
    sizes = {f"`{name}`": tables[name] for name in largest} | {
        "all tables that grow with pages": sum(tables.values()),
        "files of the index": measured.index_bytes,
    }
    for name, size in sizes.items():
        yield f"| {name} | {_short(size)}B | {_short(size * PAGES)}B |"
    yield f"| chunks | {number(measured.chunks)} | {_short(measured.chunks * PAGES).strip()} |"


def _short(value: float) -> str:
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{number(value / size)} {prefix}"
    return f"{number(value)} "


def _charts(measured: Demands) -> Iterator[Chart]:
    found = {
        name: {workers: predict(measured, with_workers(variant, workers)) for workers in WORKERS}
        for name, variant in VARIANTS.items()
    }
    lines = {name: [(n, each.pages_per_second) for n, each in line.items()] for name, line in found.items()}
    yield Chart("pages a second, by processors of PostgreSQL + index", lines, "workers", logarithmic=True)
    name, usual = next(iter(found.items()))
    busy = {
        part: [(n, 100 * each.busy[part]) for n, each in usual.items()]
        for part in usual[1].busy
        if usual[1].busy[part]
    }
    yield Chart(f"percent in use, {name}", busy, "workers", logarithmic=True)


if __name__ == "__main__":
    main()
