"""The model agrees with closed forms, and the page on scaling with the model."""

from dataclasses import replace

import pytest
from benchmarks.scaling import (
    PAGES_AT_ONCE,
    VARIANTS,
    WORKERS,
    Deployment,
    demanded_seconds,
    predict,
    tables,
    with_workers,
)

from benchmarks import demands
from tests.support.documentation import page

DEMANDS = demands.read()


def exact_rate(seconds: list[float], customers: int) -> float:
    """Exact mean value analysis of single servers."""
    queues = [0.0] * len(seconds)
    rate = 0.0
    for number in range(1, customers + 1):
        waits = [service * (1 + queue) for service, queue in zip(seconds, queues, strict=True)]
        rate = number / sum(waits)
        queues = [rate * wait for wait in waits]
    return rate


def test_one_worker_agrees_with_exact_mean_value_analysis():
    alone = Deployment(1, postgres_processors=1, index_processors=1, api_processes=9)
    seconds = demanded_seconds(DEMANDS, alone)
    exact = exact_rate([seconds[part] for part in ("workers", "PostgreSQL", "index")], PAGES_AT_ONCE)
    assert predict(DEMANDS, alone).pages_per_second == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_nothing_is_busier_than_it_can_be(variant: Deployment):
    for workers in WORKERS:
        found = predict(DEMANDS, with_workers(variant, workers))
        assert max(found.busy.values()) == pytest.approx(found.busy[found.bound])
        assert found.busy[found.bound] <= 1 + 1e-9


def test_more_of_what_bounds_helps():
    few = Deployment(64, postgres_processors=1, index_processors=1_000)
    assert predict(DEMANDS, few).bound == "PostgreSQL"
    more = predict(DEMANDS, replace(few, postgres_processors=2))
    assert more.pages_per_second > 1.5 * predict(DEMANDS, few).pages_per_second


def test_the_page_on_scaling_has_what_the_model_says():
    lines = page("docs/scaling.md").splitlines()
    assert [line for line in tables(DEMANDS) if line not in lines] == []
