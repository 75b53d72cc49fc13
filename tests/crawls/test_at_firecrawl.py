"""Crawls at Firecrawl while the database or another dependency becomes unavailable."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from crawlscope.core import service_file
from crawlscope.core.errors import DatabaseUnavailable, FirecrawlUnavailable
from crawlscope.core.settings import Settings
from crawlscope.crawls import at_firecrawl, reconciliations
from crawlscope.crawls.at_firecrawl import webhook_endpoint
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.requests import crawl_request
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient, Webhook
from crawlscope.models import CrawlFact, CrawlRequest, CrawlSession, Reconciliation
from tests.support.fakes.firecrawl_http import Reply
from tests.support.fakes.firecrawl_server import FakeFirecrawl
from tests.support.producing import deliver, due

URL = "https://docs.example/"
REQUEST = crawl_request(URL, 5)
ENDPOINT = Webhook("http://127.0.0.1:9/api/webhook/firecrawl", {})
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def firecrawl() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl() as server:
        server.hold_after = 1
        yield server


@pytest.fixture
async def client(firecrawl: FakeFirecrawl) -> AsyncIterator[FirecrawlClient]:
    async with FirecrawlClient(firecrawl.url, patience_seconds=30) as opened:
        yield opened


async def rows(database: Database, table: Any) -> int:
    async with database.transaction() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def note_checked_until_tomorrow(database: Database) -> None:
    """As after a check of a crawl that has been silent for long."""
    await database.run(reconciliations.enrol_all)
    async with database.transaction() as connection:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await connection.execute(update(Reconciliation).values(next_check_at=tomorrow))


def break_when_started(firecrawl: FakeFirecrawl, database_url: str, statement: str) -> None:
    """The database was there when Firecrawl was asked, and is not the same when it has answered."""

    async def execute() -> None:
        database = Database.open(database_url)
        async with database.transaction() as connection:
            await connection.execute(text(statement))
        await database.close()

    def strike(request: Any) -> bool:
        if request.starts:
            asyncio.run(execute())
        return False

    firecrawl.answer_with(Reply(500, {}), applies_to=strike)


async def test_a_crawl_that_cannot_be_kept_is_cancelled_at_firecrawl(
    own_database: Database, own_database_url: str, firecrawl: FakeFirecrawl, client: FirecrawlClient
) -> None:
    break_when_started(
        firecrawl, own_database_url, "ALTER TABLE webhook.crawl_requests RENAME TO crawl_requests_hidden"
    )
    with pytest.raises(DatabaseUnavailable, match="it was cancelled at Firecrawl, ask again"):
        await at_firecrawl.start(own_database, client, REQUEST, ENDPOINT, TRACE)
    [job] = firecrawl.jobs.values()
    assert job.cancelled
    assert await rows(own_database, CrawlSession) == 0
    assert await rows(own_database, CrawlFact) == 0


async def test_where_it_cannot_be_cancelled_either_that_is_said(
    own_database: Database, own_database_url: str, firecrawl: FakeFirecrawl, client: FirecrawlClient
) -> None:
    break_when_started(
        firecrawl, own_database_url, "ALTER TABLE webhook.crawl_requests RENAME TO crawl_requests_hidden"
    )
    firecrawl.answer_with(Reply(500, {"error": "no"}), applies_to=lambda request: request.method == "DELETE")
    with pytest.raises(DatabaseUnavailable, match="continues at Firecrawl"):
        await at_firecrawl.start(own_database, client, REQUEST, ENDPOINT, TRACE)


async def test_without_a_database_firecrawl_is_not_asked(
    firecrawl: FakeFirecrawl, client: FirecrawlClient
) -> None:
    nowhere = Database.open("postgresql://nobody:x@127.0.0.1:9/nothing")
    with pytest.raises(DatabaseUnavailable):
        await at_firecrawl.start(nowhere, client, REQUEST, ENDPOINT, TRACE)
    await nowhere.close()
    assert firecrawl.requests == []


async def test_a_session_that_events_made_before_is_the_same_one(
    database: Database, firecrawl: FakeFirecrawl, client: FirecrawlClient
) -> None:
    await deliver(database, "job-1", "crawl.started")
    firecrawl.answer_with(Reply(200, {"success": True, "id": "job-1"}))
    started = await at_firecrawl.start(database, client, REQUEST, ENDPOINT, TRACE)
    assert started.crawl_id == "job-1"
    assert (await rows(database, CrawlSession), await rows(database, CrawlRequest)) == (1, 1)
    async with database.transaction() as connection:
        row = (await connection.execute(select(*CrawlSession.__table__.columns))).one()
        asked = (await connection.execute(select(*CrawlRequest.__table__.columns))).one()
    assert (row.crawl_url, row.extra_metadata["traceparent"]) == (URL, TRACE)
    assert row.initiated_at == asked.requested_at
    assert (asked.engine, asked.options) == ("firecrawl", {"kind": "crawl", "limit": 5})


@pytest.mark.parametrize("crawl_id", ["", "a/b", "x" * 256, "\x00", "no id"])
async def test_an_id_that_is_none_is_not_taken(
    database: Database, firecrawl: FakeFirecrawl, client: FirecrawlClient, crawl_id: str
) -> None:
    firecrawl.answer_with(Reply(200, {"success": True, "id": crawl_id}))
    with pytest.raises(FirecrawlUnavailable, match="JSON of another shape"):
        await at_firecrawl.start(database, client, REQUEST, ENDPOINT, TRACE)
    assert await rows(database, CrawlSession) == 0


async def test_a_cancel_holds_though_the_status_cannot_be_asked_after_it(
    database: Database, firecrawl: FakeFirecrawl, client: FirecrawlClient
) -> None:
    started = await at_firecrawl.start(database, client, REQUEST, ENDPOINT, TRACE)
    asked = [0]

    def second_status(request: Any) -> bool:
        asked[0] += request.method == "GET"
        return request.method == "GET" and asked[0] > 1

    firecrawl.answer_with(Reply(403, {"success": False, "error": "no"}), applies_to=second_status)
    reconciler = Reconciler(database, client)
    assert await at_firecrawl.cancel(database, client, reconciler, started.crawl_id)
    assert firecrawl.jobs[started.crawl_id].cancelled
    async with database.transaction() as connection:
        [cancel] = await connection.scalars(
            select(CrawlFact.fact).where(CrawlFact.fact["action"].astext == "cancel")
        )
        assert await connection.scalar(select(CrawlRequest.cancel_requested))
        assert (await connection.execute(select(CrawlSession.status))).scalar_one() == "in_progress"
    assert cancel == {"action": "cancel"}


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
async def test_a_cancelled_crawl_is_compared_at_once(
    database: Database, firecrawl: FakeFirecrawl, client: FirecrawlClient, older: bool
) -> None:
    """However seldom it was asked after until then: no event may come of the cancel."""
    firecrawl.older = older
    started = await at_firecrawl.start(database, client, REQUEST, ENDPOINT, TRACE)
    await note_checked_until_tomorrow(database)
    assert await due(database) is None
    await at_firecrawl.cancel(database, client, Reconciler(database, client), started.crawl_id)
    assert await due(database) == started.crawl_id


def endpoint(data_dir: Path, **settings: Any) -> Webhook:
    given = {"firecrawl_url": "http://localhost:3002", **settings}
    return webhook_endpoint(Settings(data_dir=data_dir, _env_file=None, **given), "s3cret")


def test_without_a_public_url_the_endpoint_is_that_of_the_running_service(tmp_path: Path) -> None:
    assert endpoint(tmp_path, port=8109).url == "http://127.0.0.1:8109/api/webhook/firecrawl"
    service_file.write(tmp_path, "http://127.0.0.1:4711")
    assert endpoint(tmp_path).url == "http://127.0.0.1:4711/api/webhook/firecrawl"
    assert endpoint(tmp_path, public_url="https://here.example/x/").url == (
        "https://here.example/x/api/webhook/firecrawl"
    )


@pytest.mark.parametrize(
    ("signed", "public_url", "firecrawl_url", "sent"),
    [
        (False, None, "http://localhost:3002", True),
        (False, "http://10.0.0.5:8108", "http://10.0.0.9:3002", True),
        (True, None, "http://localhost:3002", True),
        (True, "http://127.0.0.1:8108", "http://[::1]:3002", True),
        (True, "http://10.0.0.5:8108", "http://localhost:3002", False),
        (True, "https://here.example", "https://api.firecrawl.dev", False),
        (True, None, "https://api.firecrawl.dev", False),
    ],
)
def test_the_secret_leaves_this_machine_only_where_nothing_else_lets_deliveries_in(
    tmp_path: Path, signed: bool, public_url: str | None, firecrawl_url: str, sent: bool
) -> None:
    secret = SecretStr("hmac") if signed else None
    made = endpoint(
        tmp_path, public_url=public_url, firecrawl_url=firecrawl_url, firecrawl_webhook_secret=secret
    )
    assert made.headers == ({"X-API-Secret": "s3cret"} if sent else {})
