"""A worker's queue connects to the database with the same options as all other connections."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.types import QueueEntrypoint
from sqlalchemy import text

from crawlscope.changes.acceptance import Rescraping, accept_change
from crawlscope.core.vocabulary import Engine
from crawlscope.database.engine import Database
from crawlscope.database.queue import CHANGED_PAGES, INDEX_PAGE, REINDEXING, enqueue
from crawlscope.indexing.embedders.port import EmbedderIdentity
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.generations.repository import begin_reindexing
from crawlscope.processes.worker.queue import Payload, worker_queue
from tests.support.polling import eventually


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


async def enqueue_numbered(database: Database, *payloads: Payload) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))  # begins the transaction
        await enqueue(connection, INDEX_PAGE, payloads)


async def test_jobs_that_must_be_alone_take_turns_and_others_share(database: Database) -> None:
    together: dict[int, set[int]] = {}
    running: set[int] = set()
    stopping = asyncio.Event()

    async def handle(job: Job, payload: Payload) -> None:
        number = payload["number"]
        async with queue.alone() if payload.get("alone") else nullcontext():
            running.add(number)
            together[number] = set()
            for _ in range(20):
                together[number] |= running - {number}
                await asyncio.sleep(0.01)
            running.discard(number)
        if len(together) == 8:
            stopping.set()

    await enqueue_numbered(
        database,
        *[{"number": number} | ({"alone": True} if number in (1, 2, 6) else {}) for number in range(8)],
    )
    async with asyncio.timeout(120), worker_queue(database, INDEX_PAGE, 4) as queue:
        await queue.work(handle, stopping)

    assert [together[number] for number in (1, 2, 6)] == [set(), set(), set()]
    assert together[0] == {3}
    assert together[3] == {0}


async def test_a_paused_queue_takes_no_job_and_then_as_many_as_it_may(database: Database) -> None:
    running, most, done = 0, 0, 0
    stopping = asyncio.Event()

    async def handle(job: Job, payload: Payload) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        done += 1
        if done == 9:
            stopping.set()

    async with asyncio.timeout(120), worker_queue(database, INDEX_PAGE, 4) as queue:
        queue.pause()
        working = asyncio.create_task(queue.work(handle, stopping))
        await enqueue_numbered(database, *[{"number": number} for number in range(9)])
        await asyncio.sleep(0.5)
        assert most == 0
        queue.resume()
        await working
    assert most == 4


async def test_a_queue_may_be_resumed_before_it_works(database: Database) -> None:
    async with worker_queue(database, INDEX_PAGE, 2) as queue:
        queue.pause()
        queue.resume()
        assert queue.capacity == 2


async def test_a_queue_may_be_paused_while_it_rests(database: Database) -> None:
    stopping, done = asyncio.Event(), list[int]()

    async def handle(job: Job, payload: Payload) -> None:
        done.append(payload["number"])
        if len(done) == 2:
            stopping.set()

    async with asyncio.timeout(60), worker_queue(database, INDEX_PAGE, 4, rest_seconds=0.5) as queue:
        await enqueue_numbered(database, {"number": 0})
        working = asyncio.create_task(queue.work(handle, stopping))
        await eventually(lambda: done == [0])
        await enqueue_numbered(database, {"number": 1})
        await asyncio.sleep(0.05)
        queue.pause()
        await asyncio.sleep(1)
        assert not working.done()
        queue.resume()
        await working
    assert done == [0, 1]


async def test_a_job_does_not_wait_for_a_whole_batch_of_capacity(database: Database) -> None:
    stopping, last = asyncio.Event(), asyncio.Event()

    async def handle(job: Job, payload: Payload) -> None:
        if payload["number"] < 5:
            await stopping.wait()
        last.set()

    await enqueue_numbered(database, *[{"number": number} for number in range(5)])
    async with worker_queue(database, INDEX_PAGE, at_once=8, min_batch=4) as queue:
        working = asyncio.create_task(queue.work(handle, stopping))
        await eventually(lambda: len(queue.job_context) == 5)
        await enqueue_numbered(database, {"number": 5})
        try:
            await asyncio.wait_for(last.wait(), 120)
        finally:
            stopping.set()
            await working


async def test_a_worker_does_not_look_for_jobs_as_often_as_it_hears_of_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, done, looks = asyncio.Event(), set[int](), 0

    async def handle(job: Job, payload: Payload) -> None:
        done.add(payload["number"])
        if len(done) == 30:
            stopping.set()

    async with asyncio.timeout(120), worker_queue(database, INDEX_PAGE, 8, rest_seconds=0.2) as queue:
        dequeue = queue.queries.dequeue

        async def counted(**arguments: Any) -> list[Job]:
            nonlocal looks
            looks += 1
            return await dequeue(**arguments)

        monkeypatch.setattr(queue.queries, "dequeue", counted)
        working = asyncio.create_task(queue.work(handle, stopping))
        await eventually(lambda: looks == 1)
        for number in range(30):
            await enqueue_numbered(database, {"number": number})
        await working
    assert looks < 20  # without rest it is one for each job, and one that finds none after each


async def test_an_idle_worker_hears_of_each_job(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawlscope.processes.worker.queue.IDLE_POLL_INTERVAL", timedelta(hours=1))
    for number in range(8):  # asyncpg calls the listeners of a channel in any order, another in each process
        stopping, looked = asyncio.Event(), asyncio.Event()

        async def handle(job: Job, payload: Payload, stopping: asyncio.Event = stopping) -> None:
            stopping.set()

        async with asyncio.timeout(30), worker_queue(database, INDEX_PAGE, 1) as queue:
            fetch_jobs = queue.fetch_jobs

            async def fetched(
                *arguments: Any, fetch_jobs: Any = fetch_jobs, looked: asyncio.Event = looked
            ) -> AsyncGenerator[Job, None]:
                async for job in fetch_jobs(*arguments):
                    yield job
                looked.set()

            monkeypatch.setattr(queue, "fetch_jobs", fetched)
            working = asyncio.create_task(queue.work(handle, stopping))
            await looked.wait()
            await enqueue_numbered(database, {"number": number})
            await working


async def test_a_job_that_is_due_later_and_one_of_a_silent_worker_are_taken_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.processes.worker.queue.IDLE_POLL_INTERVAL", timedelta(hours=1))
    monkeypatch.setattr("crawlscope.processes.worker.queue.MIN_POLL_INTERVAL", timedelta(milliseconds=10))
    monkeypatch.setattr("crawlscope.processes.worker.queue.HEARTBEAT_TIMEOUT", timedelta(seconds=1))
    stopping, taken = asyncio.Event(), list[int]()

    async def handle(job: Job, payload: Payload) -> None:
        taken.append(payload["number"])
        if taken == [2]:
            raise RetryRequested(timedelta(seconds=0.5), "not now")
        if len(taken) == 3:
            stopping.set()

    async with asyncio.timeout(30), worker_queue(database, INDEX_PAGE, 2) as silent:
        await enqueue_numbered(database, {"number": 1})
        [_] = await silent.queries.dequeue(
            batch_size=1,
            entrypoints={QueueEntrypoint(INDEX_PAGE): EntrypointExecutionParameter(0)},
            queue_manager_id=silent.queue_manager_id,
            global_concurrency_limit=None,
            heartbeat_timeout=timedelta(seconds=1),
        )
        await enqueue_numbered(database, {"number": 2})
        async with worker_queue(database, INDEX_PAGE, 2) as queue:
            await queue.work(handle, stopping)
    assert sorted(taken) == [1, 2, 2]


async def test_a_worker_hears_of_a_changed_page_and_of_a_requested_index(database: Database) -> None:
    async with asyncio.timeout(30), worker_queue(database, INDEX_PAGE, 2) as queue:
        changed, requested = await queue.news_of(CHANGED_PAGES), await queue.news_of(REINDEXING)
        body = b'{"watch_url": "https://a.example/"}'
        await accept_change(database, body, datetime.now(UTC), Rescraping(Engine.BUILTIN, allow_private=True))
        await changed.wait()
        assert not requested.is_set()
        recipe = Recipe(EmbedderIdentity("tei", "model", "1", 8), 200)
        await database.run(lambda connection: begin_reindexing(connection, recipe))
        await requested.wait()
