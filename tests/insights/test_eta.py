"""The range of the expected end is judged by the true one: of recorded crawls, and of made-up ones."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import exp
from random import Random

import pytest

from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.insights import eta
from crawlscope.insights.eta import Remaining, estimate
from crawlscope.insights.service import Insights
from crawlscope.pages.index_page import Outcome
from tests.support.producing import attempt, deliver, document, end, queued
from tests.support.recordings import read_deliveries

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
RECORDED = ["v1-crawl-docs", "v2-batch-200", "b-v2-crawl-flaky", "b-v2-batch-append", "v2-batch-slowlink"]
"""Those that ended by themselves, with more than one page."""


def arrivals(name: str) -> list[float]:
    """Seconds after the first delivery at which each page of a recorded crawl came first."""
    deliveries = read_deliveries(name)
    seen: dict[str, float] = {}
    for delivery in deliveries:
        for scraped in delivery["event"].get("data") or []:
            seen.setdefault(scraped["metadata"]["sourceURL"], delivery["t"] - deliveries[0]["t"])
    return sorted(seen.values())


def made_up(seed: int) -> tuple[list[float], bool]:
    """Times of pages whose pace wanders and drifts, in bursts, some with a late last page; and whether the
    crawler finds its pages only as it goes."""
    random = Random(seed)
    pages, pace = random.choice([50, 200, 1_000, 3_000]), random.choice([0.5, 2, 8, 30])
    burst, drift, level, at = random.choice([1, 1, 4, 16]), random.uniform(-1, 1), 0.0, 0.0
    times: list[float] = []
    while len(times) < pages:
        level = 0.9 * level + random.gauss(0, 0.2)
        at += random.expovariate(pace * exp(level + drift * len(times) / pages) / burst)
        times += [at] * min(burst, pages - len(times))
    times[-1] += random.choice([0, 0, 5, 12])
    return times, random.random() < 0.5


def judged(times: Sequence[float], moments: int, *, grows: bool = False) -> Iterator[bool | None]:
    """For so many moments of the crawl whether its end lies within the range; None where it is withheld."""
    for number in range(1, moments):
        now = times[-1] * number / moments
        settled = [each for each in times if each <= now]
        found = len(times)
        if grows:
            found = max(min(found, len(settled) + 3), round(found * ((len(settled) + 1) / found) ** 0.4))
        if found == len(settled):
            continue
        expected = estimate(
            Remaining(
                now=BEGAN + timedelta(seconds=now),
                settled_at=[BEGAN + timedelta(seconds=each) for each in settled[-eta.MAX_PAGES :]],
                left=found - len(settled),
                found=found,
                limit=None,
                grows=grows,
            )
        )
        ended = BEGAN + timedelta(seconds=times[-1])
        yield None if expected is None else expected.earliest <= ended <= expected.latest


def test_recorded_crawls_end_within_the_range() -> None:
    found = [each for name in RECORDED for each in judged(arrivals(name), 80)]
    known = [each for each in found if each is not None]
    assert len(known) > 100
    assert sum(known) >= 0.8 * len(known)


def test_made_up_crawls_end_within_the_range() -> None:
    known: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(60):
        times, grows = made_up(seed)
        known[grows] += [each for each in judged(times, 30, grows=grows) if each is not None]
    for inside in known.values():
        assert len(inside) > 200
        assert sum(inside) >= 0.8 * len(inside)


def remaining(seconds: Sequence[float], **changes: object) -> Remaining:
    facts: dict[str, object] = {
        "now": BEGAN + timedelta(seconds=100),
        "settled_at": [BEGAN + timedelta(seconds=each) for each in seconds],
        "left": 100,
        "found": 300,
        "limit": None,
        "grows": False,
    }
    return Remaining(**{**facts, **changes})  # type: ignore[arg-type]


STEADY = [0.5 * number for number in range(201)]


def test_a_steady_pace_has_a_narrow_range() -> None:
    found = estimate(remaining(STEADY))
    assert found is not None
    left = [(each - BEGAN).total_seconds() - 100 for each in (found.earliest, found.at, found.latest)]
    assert left == pytest.approx([35, 50, 86], abs=3)
    assert found.pages_left == 100


@pytest.mark.parametrize(
    "thin",
    [
        remaining(STEADY[-11:]),
        remaining([99 + number / 100 for number in range(100)]),
        remaining([0.3 * number for number in range(201)]),
        remaining(STEADY, left=0),
        remaining(STEADY, grows=True, left=200),
    ],
    ids=["few pages", "a short time", "nothing lately", "nothing left", "a crawler that finds more"],
)
def test_thin_evidence_gives_no_range(thin: Remaining) -> None:
    assert estimate(thin) is None


def test_a_crawler_that_may_find_more_widens_the_range_up_to_its_limit() -> None:
    known, growing, limited = (
        estimate(remaining(STEADY, grows=grows, limit=limit))
        for grows, limit in ((False, None), (True, None), (True, 310))
    )
    assert known
    assert growing
    assert limited
    assert known.at == growing.at == limited.at
    assert known.latest < limited.latest < growing.latest


async def test_a_running_crawl_has_its_range(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eta, "MIN_SECONDS", 0.0)
    urls = [f"https://a.example/{number}" for number in range(30)]
    await deliver(database, "crawl-1", "crawl.page", [document(each) for each in urls])
    await deliver(database, "crawl-1", "crawl.completed")
    insights = Insights(database)
    assert (await insights.crawl("crawl-1")).eta is None
    for job in (await queued(database, "crawl-1"))[:20]:
        await end(database, *await attempt(database, job), Outcome(PageState.INDEXED, 1))
    expected = (await insights.crawl("crawl-1")).eta
    assert expected is not None
    assert expected.pages_left == 10
    assert datetime.now(UTC) - timedelta(minutes=1) < expected.earliest < expected.at < expected.latest
