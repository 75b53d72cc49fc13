"""A worker's queue connects to the database with the same options as all other connections."""

import asyncio

import pytest
from pgqueuer.models import Job

from crawlscope.database.engine import Database
from crawlscope.database.queue import INDEX_PAGE
from crawlscope.processes.worker.queue import Payload, worker_queue


async def no_jobs(job: Job, payload: Payload) -> None:
    raise AssertionError("there is no job")


@pytest.mark.parametrize("option", ["sslmode=prefer", "ssl=prefer", "target_session_attrs=any"])
async def test_options_of_the_database_url_hold_for_the_queue_too(database_url: str, option: str) -> None:
    database = Database.open(f"{database_url}&{option}")
    await database.ping()
    stopping = asyncio.Event()
    stopping.set()
    async with worker_queue(database, INDEX_PAGE, 2) as queue:
        await queue.work(no_jobs, stopping)
    await database.close()


async def test_a_queue_that_never_ran_can_be_closed(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with worker_queue(database, INDEX_PAGE, 2):
            raise ZeroDivisionError
