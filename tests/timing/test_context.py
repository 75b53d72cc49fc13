import asyncio
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import select

from crawlscope.core.histogram import whole_ticks
from crawlscope.models import CrawlSession, OperationMetric
from crawlscope.timing import TimingContext, context, scope
from crawlscope.timing.standalone import use
from crawlscope.timing.store import MeasurementBuffer, record_operations
from tests.conftest import named


@pytest.fixture
def collected():
    found: list[TimingContext] = []
    with scope(collect=found.append):
        yield found


def test_measures_wall_time_and_has_the_ids_of_its_scope(collected):
    with (
        scope(crawl_id="c1", job_id="j1", document_url="https://example.com/"),
        TimingContext("chunking", "chunk_text", metadata={"chunks": 3}) as timing,
    ):
        time.sleep(0.01)
        assert timing.duration_ms > 5
    [measured] = collected
    assert 10 <= measured.duration_ms < 1_000
    assert (measured.crawl_id, measured.job_id) == ("c1", "j1")
    assert measured.document_url == "https://example.com/"
    assert measured.success
    assert measured.metadata == {"chunks": 3}


async def test_an_error_is_recorded_and_raised(collected):
    with pytest.raises(ValueError, match="no vectors"):
        async with TimingContext("embedding", "embed_batch"):
            raise ValueError("no vectors")
    assert (collected[0].success, collected[0].error_message) == (False, "no vectors")


def test_own_ids_win_over_the_scope(collected):
    with scope(crawl_id="outer"), TimingContext("bm25", "index_document", crawl_id="given"):
        pass
    assert collected[0].crawl_id == "given"


async def test_concurrent_work_keeps_its_own_ids(collected):
    async def work(crawl_id: str) -> None:
        with scope(crawl_id=crawl_id):
            async with TimingContext("qdrant", "index_chunks", metadata={"of": crawl_id}):
                await asyncio.sleep(0.01)

    await asyncio.gather(*[work(f"c{number}") for number in range(20)])
    assert all(each.crawl_id == each.metadata["of"] for each in collected)


def test_an_early_stop_counts_once(collected):
    with TimingContext("worker", "index_document") as timing:
        timing.stop()
        time.sleep(0.02)
    assert len(collected) == 1
    assert collected[0].duration_ms < 20


def test_a_wait_is_subtracted_exactly(collected, monkeypatch):
    clock = iter([100.0, 100.0301, 100.1])
    monkeypatch.setattr(context, "perf_counter", lambda: next(clock))
    with TimingContext("embedding", "embed_batch", crawl_id="c1") as whole:
        whole.set_apart(0.02, "embedding_wait", "wait_for_embedder")
    apart, rest = collected
    assert (apart.operation_type, apart.crawl_id, apart.success) == ("embedding_wait", "c1", True)
    assert apart.duration_ms == whole_ticks(20)
    assert apart.duration_ms + rest.duration_ms == whole_ticks(100)
    assert apart.timestamp == rest.timestamp


def test_a_wait_is_at_most_the_duration(collected):
    with TimingContext("embedding", "embed_batch") as whole:
        whole.set_apart(0.0, "embedding_wait", "none")
        whole.set_apart(1_000, "embedding_wait", "too_much")
        whole.set_apart(1_000, "embedding_wait", "too_much")
    assert all(0 <= each.duration_ms < 1_000 for each in collected)
    assert collected[-1].operation_type == "embedding"


async def test_the_buffer_creates_the_session_of_an_unknown_crawl_and_adds_to_its_totals(database):
    buffer = MeasurementBuffer(database)
    with use(buffer):
        with TimingContext("chunking", "chunk_text", crawl_id="unheard") as succeeded:
            pass
        with pytest.raises(KeyError), TimingContext("chunking", "chunk_text", crawl_id="unheard"):
            raise KeyError("x")
        with TimingContext("embedding", "nobody's", metadata={"nul": "\x00", "odd": object()}):
            pass
    await buffer.flush()
    async with database.transaction() as connection:
        operations = (await connection.execute(select(OperationMetric))).all()
        session = (await connection.execute(select(CrawlSession.__table__))).one()
    assert len(operations) == 3
    assert session.crawl_id == "unheard"
    assert session.crawl_url == "unknown"
    assert session.status == "in_progress"
    assert session.total_chunking_ms == pytest.approx(succeeded.duration_ms)


async def test_two_flushes_at_once_write_everything_once(database):
    buffer = MeasurementBuffer(database)
    with use(buffer):
        for number in range(5):
            with TimingContext("chunking", f"number {number}"):
                pass
    await asyncio.gather(*[buffer.flush() for _ in range(4)])
    async with database.transaction() as connection:
        names = await connection.scalars(select(OperationMetric.operation_name))
        assert sorted(names) == [f"number {number}" for number in range(5)]


async def test_what_threads_measure_is_written_soon_also_after_a_rest(database):
    buffer, names = MeasurementBuffer(database), list[str]()
    buffer.start()

    def measure(name):
        with TimingContext("chunking", name):
            pass

    with use(buffer):
        for name in ("first", "second"):
            await asyncio.to_thread(measure, name)
            async with asyncio.timeout(30):
                while name not in names:
                    async with database.transaction() as connection:
                        names = [*await connection.scalars(select(OperationMetric.operation_name))]
    await buffer.stop()
    assert sorted(names) == ["first", "second"]


async def test_ids_order_by_time_whatever_the_clock_says(database):
    times = (0.0, 1.5e9, 1.7e9, 1.7e9 + 0.002)
    measured: list[TimingContext] = []
    with scope(collect=measured.append):
        for at in (*times, -5.0, *[2e9] * 50):
            with TimingContext("chunking", f"at {at}") as timing:
                pass
            timing.timestamp = at
    async with database.transaction() as connection:
        await record_operations(connection, measured)
        rows = (
            await connection.execute(
                select(OperationMetric.id, OperationMetric.timestamp).order_by(OperationMetric.id)
            )
        ).all()
    assert len(rows) == 55
    assert {row.id.version for row in rows} == {7}
    ordered = [row.timestamp.timestamp() for row in rows if row.timestamp.timestamp() >= 0]
    assert ordered == sorted(ordered)


PROGRAM = """
import time
from crawlscope.timing import TimingContext
with TimingContext("chunking", "chunk_text", crawl_id="alone"):
    time.sleep(0.02)
"""


@pytest.mark.parametrize("there", ["nothing", "no tables"])
async def test_a_program_that_cannot_store_its_measurements_only_logs_it(tmp_path, postgres_url, there):
    nowhere = "postgresql://nobody:secret@localhost:1/nothing"  # a name: to resolve it takes a thread
    url = nowhere if there == "nothing" else named(postgres_url, "postgres")
    environment = {"CRAWLSCOPE_DATABASE_URL": url, "CRAWLSCOPE_DATA_DIR": str(tmp_path)}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", PROGRAM], env=environment, timeout=180, capture_output=True
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0
    assert "measurements_lost" in said
    assert "Traceback" not in said
    assert "secret" not in said


async def test_a_separate_program_stores_its_measurements_before_it_ends(database, database_url, tmp_path):
    environment = {"CRAWLSCOPE_DATABASE_URL": database_url, "CRAWLSCOPE_DATA_DIR": str(tmp_path)}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", PROGRAM], env=environment, timeout=180, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    async with database.transaction() as connection:
        [duration_ms] = await connection.scalars(select(OperationMetric.duration_ms))
    assert duration_ms >= 20


def test_the_tests_write_to_no_service_of_this_machine():
    with TimingContext("worker", "of_no_scope"):
        pass
    assert "crawlscope-timing" not in {thread.name for thread in threading.enumerate()}
