"""Traffic is what recordings, sizes and seeds say."""

import itertools
import json
import statistics
from collections import Counter
from random import Random

import pytest
from benchmarks.traffic import (
    MAX_BYTES,
    MEDIAN_BYTES,
    P95_BYTES,
    RECORDED,
    Traffic,
    deliveries,
    events_of,
    page_characters,
)

TRAFFIC = Traffic(seed=11, pages_per_second=20.0, seconds=120.0, sites=len(RECORDED), repeated=0.1)


def test_the_same_seed_gives_the_same_deliveries():
    first, second, other = (
        list(itertools.islice(deliveries(traffic), 100)) for traffic in (TRAFFIC, TRAFFIC, Traffic(seed=12))
    )
    assert first == second
    assert first != other


def test_deliveries_come_when_they_are_due_at_the_given_rate():
    planned = list(deliveries(TRAFFIC))
    assert [each.due for each in planned] == sorted(each.due for each in planned)
    pages = sum(each.page is not None for each in planned) / (1 + TRAFFIC.repeated)
    assert pages / TRAFFIC.seconds == pytest.approx(TRAFFIC.pages_per_second, rel=0.4)  # crawls are random


def test_each_crawl_sends_the_events_of_a_recording_in_their_order():
    once = Traffic(seed=11, pages_per_second=20.0, seconds=60.0, sites=len(RECORDED), repeated=0.0)
    crawls: dict[str, list[str]] = {}
    for delivery in deliveries(once):
        crawls.setdefault(delivery.crawl_id, []).append(delivery.event["type"])
    recorded = [[json.loads(each.event)["type"] for each in events_of(name)] for name in RECORDED]
    assert len(crawls) > 10
    assert all(events in recorded for events in crawls.values())


def test_some_deliveries_arrive_twice_and_unchanged():
    times = Counter(json.dumps(each.event) for each in deliveries(TRAFFIC))
    assert set(times.values()) == {1, 2}
    twice = sum(count == 2 for count in times.values())
    assert twice / len(times) == pytest.approx(TRAFFIC.repeated, rel=0.3)


def test_a_site_that_is_crawled_again_has_changed_in_part():
    versions: dict[str, dict[str, int]] = {}
    for delivery in deliveries(Traffic(seed=3, pages_per_second=30.0, seconds=60.0, sites=1)):
        if delivery.page is not None and delivery.version is not None:
            versions.setdefault(delivery.page, {})[delivery.crawl_id] = delivery.version
    in_order = [sorted(seen.values()) for seen in versions.values()]
    steps = [new - old for seen in in_order for old, new in itertools.pairwise(seen)]
    assert set(steps) == {0, 1}
    assert statistics.fmean(steps) == pytest.approx(Traffic.changed, abs=0.05)


def test_pages_are_as_large_as_recorded_ones():
    sizes = sorted(page_characters(Random(f"https://site.example/{number}")) for number in range(4_000))
    assert statistics.median(sizes) == pytest.approx(MEDIAN_BYTES, rel=0.1)
    assert sizes[int(0.95 * len(sizes))] == pytest.approx(P95_BYTES, rel=0.1)
    assert sizes[-1] <= MAX_BYTES
