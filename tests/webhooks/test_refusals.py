"""The crawls of refused deliveries are remembered until the database is available."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from crawlscope.crawls.reconciliations import claim_due, enrol_open_crawls
from crawlscope.database.engine import Database
from crawlscope.models import CrawlFact, CrawlSession, Reconciliation
from crawlscope.sessions.recount import recount
from crawlscope.webhooks.refusals import FILE, Refusals
from tests.support.producing import deliver, due, note_settled


def body_of(crawl_id: str) -> bytes:
    return json.dumps({"type": "crawl.page", "id": crawl_id, "data": "not a list"}).encode()


def kept(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def stored_in_background(refusals: Refusals, folder: Path) -> None:
    async with refusals.stored_in_background():
        for _ in range(1000):
            if not kept(folder):
                return
            await asyncio.sleep(0.05)
    raise AssertionError("the file is still there")


async def crawls(database: Database) -> list[str]:
    async with database.transaction() as connection:
        return sorted(await connection.scalars(select(CrawlSession.crawl_id)))


async def test_a_refusal_outlives_the_process_and_makes_the_crawl_known(
    database: Database, tmp_path: Path
) -> None:
    unavailable = Database.open("postgresql://nobody@127.0.0.1:1/nothing")
    refusals = Refusals(tmp_path, unavailable)
    for crawl_id in ("crawl-1", "crawl-2", "crawl-1"):
        refusals.add(body_of(crawl_id))
    async with refusals.stored_in_background():
        await asyncio.sleep(0.2)
    assert kept(tmp_path), "while the database is unavailable it stays in the folder"
    await unavailable.close()

    await stored_in_background(Refusals(tmp_path, database), tmp_path)
    assert await crawls(database) == ["crawl-1", "crawl-2"]
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}


@pytest.mark.parametrize(
    "damage",
    [
        b'{"crawl_id": "crawl-0',
        b"\n{}\n5\n[]\nnull\n",
        b'{"crawl_id": "crawl-0", "at": "noon"}',
        bytes(64),
        b"\xff",
    ],
    ids=["half a line", "other JSON", "no time", "zeros", "no text"],
)
@pytest.mark.parametrize("name", [FILE, "refused-deliveries.left.taken"])
async def test_what_a_full_disk_or_a_crash_left_keeps_nothing_else_out(
    database: Database, tmp_path: Path, name: str, damage: bytes
) -> None:
    (tmp_path / name).write_bytes(damage)
    refusals = Refusals(tmp_path, database)
    refusals.add(body_of("crawl-1"))
    await stored_in_background(refusals, tmp_path)
    refusals.add(body_of("crawl-2"))
    await stored_in_background(refusals, tmp_path)
    assert await crawls(database) == ["crawl-1", "crawl-2"]


async def test_of_many_refusals_of_a_crawl_the_first_and_the_last_are_kept(
    database: Database, tmp_path: Path
) -> None:
    refusals = Refusals(tmp_path, database)
    began = datetime.now(UTC)
    for _ in range(50):
        refusals.add(body_of("crawl-1"))
    await stored_in_background(refusals, tmp_path)
    async with database.transaction() as connection:
        first, last = (await connection.scalars(select(CrawlFact.at).order_by(CrawlFact.at))).all()
        assert began < first < last < datetime.now(UTC)
        assert await connection.scalar(select(CrawlSession.started_at)) == first
        assert await connection.scalar(select(CrawlSession.last_fact_at)) == last


async def test_two_services_on_one_folder_lose_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.webhooks.refusals.POLL_INTERVAL_SECONDS", 0.0)
    refused = [f"crawl-{number:03}" for number in range(200)]
    one, other = Refusals(tmp_path, database), Refusals(tmp_path, database)

    def refuse(some: Refusals, crawl_ids: list[str]) -> None:
        for crawl_id in crawl_ids:
            some.add(body_of(crawl_id))
            time.sleep(0.002)

    async with one.stored_in_background(), other.stored_in_background():
        await asyncio.gather(
            asyncio.to_thread(refuse, one, refused[::2]), asyncio.to_thread(refuse, other, refused[1::2])
        )
        await stored_in_background(one, tmp_path)
    assert await crawls(database) == refused


async def test_what_names_no_crawl_is_passed_over(database: Database, tmp_path: Path) -> None:
    refusals = Refusals(tmp_path, database)
    for body in (b"", b"{", b"[]", b'{"type": "crawl.page"}', b"\xff\xfe"):
        refusals.add(body)
    assert not (tmp_path / FILE).exists()


async def test_a_settled_crawl_is_unsettled_by_a_refusal(database: Database, tmp_path: Path) -> None:
    at = datetime.now(UTC) - timedelta(minutes=10)
    await deliver(database, "crawl-1", "crawl.completed", at=at)
    assert await due(database) == "crawl-1"
    await note_settled(database, "crawl-1")
    assert await due(database) is None
    refusals = Refusals(tmp_path, database)
    refusals.add(body_of("crawl-1"))
    await stored_in_background(refusals, tmp_path)
    async with database.transaction() as connection:
        check = (await connection.execute(select(*Reconciliation.__table__.columns))).one()
    assert (check.settled, check.in_full) == (False, True)
    assert check.next_check_at - datetime.now(UTC) < timedelta(seconds=5)


async def test_one_process_checks_a_crawl_at_a_time(database: Database) -> None:
    crawls = [f"crawl-{number}" for number in range(12)]
    for crawl_id in crawls:
        await deliver(database, crawl_id, "crawl.started", at=datetime.now(UTC) - timedelta(minutes=10))
    claimed = await asyncio.gather(*[due(database) for _ in range(len(crawls) + 4)])
    assert sorted(each for each in claimed if each) == sorted(crawls)


async def test_a_crawl_found_due_while_another_process_takes_it_is_left_to_that(database: Database) -> None:
    quiet = timedelta(minutes=5)
    await deliver(database, "crawl-1", "crawl.completed")
    async with database.engine.begin() as first:
        claim = await claim_due(first, quiet)
        assert claim is not None
        assert claim.crawl_id == "crawl-1"
        second = asyncio.create_task(database.run(lambda connection: claim_due(connection, quiet)))
        for _ in range(1000):
            if await first.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                break
            await asyncio.sleep(0.01)
        assert not second.done(), "it waits for what the first one does"
    assert await second is None


async def test_a_crawl_with_a_recent_event_is_left_alone(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.started")
    await database.run(enrol_open_crawls)
    assert await database.run(lambda connection: claim_due(connection, timedelta(minutes=5))) is None
