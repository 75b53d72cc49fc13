"""The exposition of all metrics in Prometheus's text format."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from crawlscope import __version__
from crawlscope.indexing.index.port import IndexSize
from crawlscope.insights.fleet import Fleet
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.meters import Labels, Series, Total
from crawlscope.webhooks.refusals import Cause


def exposition(
    accept: str,
    dependencies: Mapping[str, bool],
    fleet: Fleet | None,
    index: IndexSize | None,
    data_dir: Path | None,
) -> tuple[bytes, str]:
    """The text and its media type. `fleet` is None without the database, `index` without the index, and
    `data_dir` is that of the embedded database.
    """
    families = [
        _gauge("build_info", "The version of the answering process; always 1.", {__version__: 1}, "version"),
        _gauge(
            "dependency_up",
            "Whether the answering process can use this dependency.",
            {name: float(up) for name, up in dependencies.items()},
            "dependency",
        ),
    ]
    if fleet:
        families += [*_state(fleet), *_totals(fleet.totals)]
    if index:
        families.append(_gauge("index_chunks", "Chunks in the serving index.", {"": index.chunks}))
        if index.bytes is not None:
            families.append(
                _gauge("index_size_bytes", "Size of the embedded index on disk.", {"": index.bytes})
            )
    if data_dir:
        free = shutil.disk_usage(data_dir).free
        families.append(_gauge("data_dir_free_bytes", "Free disk space of the data folder.", {"": free}))
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Families(families))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauge(name: str, help_text: str, values: Mapping[str, float], label: str = "") -> Metric:
    family = GaugeMetricFamily(f"crawlscope_{name}", help_text, labels=[label] if label else [])
    for value_of_label, value in values.items():
        family.add_metric([value_of_label] if label else [], value)
    return family


def _state(fleet: Fleet) -> Iterable[Metric]:
    jobs = GaugeMetricFamily(
        "crawlscope_queue_jobs", "Jobs in the queue, by kind and state.", labels=["queue", "state"]
    )
    for each in fleet.jobs:
        for state, count in each.by_state.items():
            jobs.add_metric([each.queue, state], count)
    processes = GaugeMetricFamily(
        "crawlscope_processes", "Processes that report, by kind and version.", labels=["process", "version"]
    )
    memory = GaugeMetricFamily(
        "crawlscope_process_memory_bytes",
        "Resident memory of these processes.",
        labels=["process", "version"],
    )
    for kind in fleet.processes:
        processes.add_metric([kind.kind, kind.version], kind.count)
        memory.add_metric([kind.kind, kind.version], kind.memory_bytes)
    return [
        jobs,
        _gauge(
            "queue_oldest_job_age_seconds",
            "Age of the oldest job that waits; 0 without one.",
            {each.queue: each.oldest_seconds for each in fleet.jobs},
            "queue",
        ),
        processes,
        memory,
        _gauge("crawls_in_progress", "Crawls whose end is not known.", {"": fleet.crawls_in_progress}),
        _gauge(
            "workers_waiting",
            "Workers that wait for an unavailable dependency.",
            {**dict.fromkeys(("database", "embedder", "index"), 0), **fleet.waiting_workers},
            "dependency",
        ),
        _gauge("notifications_pending", "Notifications to be sent.", {"": fleet.notifications_pending}),
        _gauge("database_size_bytes", "Size of the database on disk.", {"": fleet.database_bytes}),
    ]


def _totals(series: Series) -> Iterable[Metric]:
    """Every metric, also one of which nothing was counted yet."""
    totals: dict[conventions.Metric, dict[Labels, Total]] = defaultdict(dict)
    for (metric, labels), total in series.items():
        totals[metric][labels] = total
    for metric in conventions.ALL:
        yield _histogram(metric, totals[metric]) if metric.buckets else _counter(metric, totals[metric])


def _counter(metric: conventions.Metric, totals: Mapping[Labels, Total]) -> Metric:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    known = list(Cause) if metric is conventions.REFUSALS else metric.known
    first: list[Labels] = [(value,) for value in known] if metric.labels else [()]
    values = dict.fromkeys(first, 0.0) | {labels: total.value for labels, total in totals.items()}
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: conventions.Metric, totals: Mapping[Labels, Total]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
    for labels, total in totals.items():
        counts = list(zip(bounds, accumulate(total.buckets), strict=True))
        family.add_metric(labels, buckets=counts, sum_value=total.value)
    return family
