"""Each cause is named by the numbers that show it, and none where nothing stands out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.core.vocabulary import Bottleneck
from crawlscope.database.engine import Database
from crawlscope.insights.diagnosis import (
    BrokenAttempts,
    CrawlEvidence,
    Giants,
    SiteTimes,
    diagnose,
)
from crawlscope.insights.schemas import IdleTime, StageTime
from crawlscope.insights.service import Insights
from crawlscope.processes.worker.circuit import Outages
from tests.support.producing import A, B, deliver, deliver_pages, fail_pages, index_pages

NO_IDLE_TIME = IdleTime(crawler_ms=0, queue_ms=0, embedder_ms=0, index_ms=0, database_ms=0)


def stages(**work_ms: float) -> dict[str, StageTime]:
    whole = {"worker": sum(work_ms.values()), **work_ms}
    return {name: StageTime(work_ms=ms, wall_ms=ms / 4, concurrency=4.0) for name, ms in whole.items()}


HEALTHY = CrawlEvidence(
    wall_ms=60_000,
    late_ms=500,
    idle=NO_IDLE_TIME,
    stages=stages(chunking=2_000, embedding=40_000, qdrant=2_000, bm25=500),
    received=200,
    attempts=200,
    attempts_ms=44_500,
    workers=2,
    cores=4,
    site=SiteTimes(requests=200, response_ms=20_000, refusals=0, delay_ms=0),
)
LATE = replace(HEALTHY, late_ms=50_000)
ON_PURPOSE = {
    Bottleneck.EMBEDDER: LATE,
    Bottleneck.INDEX: replace(LATE, stages=stages(chunking=2_000, embedding=9_000, qdrant=40_000)),
    Bottleneck.WORKERS: replace(LATE, stages=stages(chunking=40_000, embedding=9_000), workers=1),
    Bottleneck.GIANT_PAGES: replace(
        LATE, giants=Giants(pages=1, work_ms=40_000, late_ms=45_000, most_chunks=9_000, usual_chunks=3)
    ),
    Bottleneck.RETRIES: replace(
        LATE, broken=BrokenAttempts(number=60, work_ms=40_000, late_ms=30_000, error_code="too_slow")
    ),
    Bottleneck.OUTAGE: replace(
        LATE, late_ms=10_000, idle=NO_IDLE_TIME.model_copy(update={"database_ms": 40_000})
    ),
    Bottleneck.SLOW_SITE: replace(HEALTHY, site=SiteTimes(200, 400_000, 0, 0)),
    Bottleneck.RATE_LIMIT: replace(HEALTHY, site=SiteTimes(300, 20_000, 100, 900_000)),
}


@pytest.mark.parametrize("bottleneck", ON_PURPOSE)
def test_each_bottleneck_is_named_with_a_change_and_its_saving(bottleneck: Bottleneck):
    evidence = ON_PURPOSE[bottleneck]

    first, *others = diagnose(evidence)

    assert first.bound_by is bottleneck
    assert first.change
    assert first.saving_ms is not None
    assert 2_000 <= first.saving_ms <= evidence.wall_ms
    assert first.reason.endswith(".")
    assert first.evidence
    savings = [each.saving_ms or 0 for each in (first, *others)]
    assert savings == sorted(savings, reverse=True)


@pytest.mark.parametrize(
    "evidence",
    [
        HEALTHY,
        CrawlEvidence(wall_ms=0, late_ms=0, idle=NO_IDLE_TIME),
        replace(HEALTHY, late_ms=3_000),  # of a minute
        replace(LATE, wall_ms=1_500, late_ms=1_400),  # over before it matters
        replace(HEALTHY, site=None),  # the crawler reports no times, and delivers three pages a second
    ],
)
def test_nothing_stands_out_of_a_healthy_crawl(evidence: CrawlEvidence):
    [only] = diagnose(evidence)

    assert (only.bound_by, only.change, only.saving_ms) == (Bottleneck.NOTHING, None, None)


def test_a_crawler_that_reports_no_times_shows_a_slow_or_refusing_site_by_its_pages():
    slow = replace(HEALTHY, site=None, received=10)

    assert diagnose(slow)[0].bound_by is Bottleneck.SLOW_SITE
    assert diagnose(replace(slow, refused_pages=4))[0].bound_by is Bottleneck.RATE_LIMIT


def test_the_advice_names_the_setting_and_fits_the_embedder():
    assert "CRAWLSCOPE_EMBEDDER=tei" in (diagnose(LATE)[0].change or "")
    assert "replicas" in (diagnose(replace(LATE, local_embedder=False))[0].change or "")
    assert "CRAWLSCOPE_WORKERS=2" in (diagnose(ON_PURPOSE[Bottleneck.WORKERS])[0].change or "")


def test_the_state_that_costs_more_comes_first():
    both = replace(LATE, late_ms=20_000, idle=NO_IDLE_TIME.model_copy(update={"index_ms": 30_000}))

    assert [each.bound_by for each in diagnose(both)] == [Bottleneck.OUTAGE, Bottleneck.EMBEDDER]


def test_attempts_that_an_outage_broke_are_its_cost():
    broken = BrokenAttempts(number=16, work_ms=40_000, late_ms=5_000, error_code="embedder_unavailable")
    idle = NO_IDLE_TIME.model_copy(update={"embedder_ms": 20_000})

    first, *others = diagnose(replace(HEALTHY, late_ms=30_000, broken=broken, idle=idle))

    assert first.bound_by is Bottleneck.OUTAGE
    assert Bottleneck.RETRIES not in [each.bound_by for each in others]
    assert "16 of 200 attempts at pages failed and were repeated." in first.reason
    assert 25_000 < (first.saving_ms or 0) < 50_000
    assert diagnose(replace(LATE, broken=broken))[0].bound_by is Bottleneck.RETRIES


async def test_an_outage_that_goes_on_is_counted_until_now(database: Database, insights: Insights):
    await deliver(database, "crawl-1", "crawl.started")
    await deliver_pages(database, "crawl-1", A)
    await Outages(database, "worker-1").note("embedder", "no answer")

    first, second = [(await insights.diagnosis("crawl-1")).idle for _ in range(2)]

    assert 0 < first.embedder_ms < second.embedder_ms
    assert first.queue_ms == second.queue_ms  # before the outage


async def test_the_time_of_a_crawl_is_divided_without_rest(database: Database, insights: Insights):
    began = datetime.now(UTC) - timedelta(seconds=30)
    await deliver(database, "crawl-1", "crawl.started", at=began)
    await deliver_pages(database, "crawl-1", A)
    await index_pages(database, "crawl-1")
    await deliver_pages(database, "crawl-1", B)
    await fail_pages(database, "crawl-1", "bad_text", "cannot embed")
    await deliver(database, "crawl-1", "crawl.completed")

    found, crawl = await insights.diagnosis("crawl-1"), await insights.crawl("crawl-1")

    assert found.wall_ms == pytest.approx(crawl.duration_ms, rel=0.01)
    idle = found.idle.model_dump()
    assert found.busy_ms + sum(idle.values()) == pytest.approx(found.wall_ms)
    assert idle["crawler_ms"] > 25_000
    assert found.busy_ms > 0
    assert found.late_ms == 0
    worker = found.stages["worker"]
    assert worker.work_ms == pytest.approx(worker.wall_ms, rel=0.01)  # one page after the other
    assert found.bound_by is Bottleneck.SLOW_SITE  # two pages in half a minute
    assert found.evidence["between_pages_ms"] == pytest.approx(15_000, rel=0.1)


async def test_a_crawl_of_nothing_has_a_diagnosis(database: Database, insights: Insights):
    await deliver(database, "crawl-1", "crawl.started")

    assert (await insights.diagnosis("crawl-1")).bound_by is Bottleneck.NOTHING
