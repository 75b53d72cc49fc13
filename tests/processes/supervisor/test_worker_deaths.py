"""Deaths of workers are written down in their order, and one that cannot be keeps no other waiting."""

from datetime import UTC, datetime

from sqlalchemy import select
from structlog.testing import capture_logs

from crawlscope.database.engine import Database
from crawlscope.pages.attempts import ATTEMPTS, PageJob, claim_pages, worker_name
from crawlscope.pages.repository import PAGES
from crawlscope.processes.supervisor.supervisor import Exit
from crawlscope.processes.supervisor.worker_deaths import MAX_ATTEMPTS, WorkerDeaths
from tests.support.producing import deliver

BEFORE_ALL_TIMES = datetime.min.replace(tzinfo=UTC)


def death(pid: int, began_at: datetime) -> Exit:
    return Exit("worker-1", pid, -9, began_at, datetime.now(UTC), asked_for=False)


async def test_a_death_that_cannot_be_written_keeps_no_other_waiting(database: Database) -> None:
    url, began_at = "https://a.example/page", datetime.now(UTC)
    metadata = {"sourceURL": url, "url": url, "statusCode": 200}
    await deliver(database, "crawl-1", "crawl.page", [{"markdown": "A page.", "metadata": metadata}])
    async with database.transaction() as connection:
        page = (await connection.execute(select(*PAGES.c))).one()
        job = PageJob(page.id, page.revision, page.job_id)
        assert await claim_pages(connection, [job], worker_name(2)) != [None]
    deaths = WorkerDeaths(database)
    deaths.note(death(1, BEFORE_ALL_TIMES))
    deaths.note(death(2, began_at))
    with capture_logs() as lines:
        await deaths.write()
        async with database.transaction() as connection:
            assert await connection.scalar(select(ATTEMPTS.c.outcome)) == "crashed"
        for _ in range(MAX_ATTEMPTS):
            await deaths.write()
    assert [line["event"] for line in lines].count("crash_storage_failed") == MAX_ATTEMPTS
