"""The exposition of all metrics in Prometheus's text format."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TypeVar

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

from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.meters import Gauges, Labels, Series, Total
from crawlscope.webhooks.refusals import Cause

T = TypeVar("T")


def exposition(accept: str, gauges: Gauges, totals: Series | None) -> tuple[bytes, str]:
    """The text, in the format of the header `Accept`, and its media type. `totals` is None while they cannot
    be read.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Families([*_gauges(gauges), *(_totals(totals) if totals is not None else ())]))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauges(gauges: Gauges) -> Iterable[Metric]:
    for metric, values in _by_metric(gauges).items():
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        yield family


def _totals(series: Series) -> Iterable[Metric]:
    """Every metric, also one of which nothing was counted yet."""
    totals = _by_metric(series)
    for metric in conventions.COUNTED:
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


def _by_metric(
    values: Mapping[tuple[conventions.Metric, Labels], T],
) -> defaultdict[conventions.Metric, dict[Labels, T]]:
    found: defaultdict[conventions.Metric, dict[Labels, T]] = defaultdict(dict)
    for (metric, labels), value in values.items():
        found[metric][labels] = value
    return found
