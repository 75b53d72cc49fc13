"""Events are detected, put into the outbox, and sent until a receiver has them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, update

from crawlscope.cli.doctor import Finding, find
from crawlscope.core.errors import NotFoundError
from crawlscope.core.expectations import parse_expectation
from crawlscope.core.settings import load_settings
from crawlscope.core.vocabulary import ReconcileState
from crawlscope.crawls import reconciliations
from crawlscope.database.engine import Database
from crawlscope.database.retention import Keep
from crawlscope.models import CrawlSession, Notification, Page
from crawlscope.notifications import outbox
from crawlscope.notifications.detection import Detector
from crawlscope.notifications.retention import prune_notifications
from crawlscope.notifications.retry import Reply as AttemptReply
from crawlscope.notifications.sending import Receiver, send_due
from tests.support.fakes.firecrawl_http import Reply
from tests.support.fakes.loopback import free_port
from tests.support.fakes.notification_receiver import OK, SECRET, FakeReceiver
from tests.support.producing import A, B, deliver, deliver_pages, index_pages, note_settled

SITE = "https://docs.example"
NO_DELAYS = [0.0] * 7


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    with FakeReceiver() as running:
        yield running


async def detecting(database: Database, *, asks_firecrawl: bool = False, **options: float) -> Detector:
    """A detector that was on before the test's crawls began."""
    seconds = {"grace_seconds": 0.0, "stall_patience_seconds": 0.0, **options}
    made = Detector(
        database,
        300,
        seconds["grace_seconds"],
        seconds["stall_patience_seconds"],
        asks_firecrawl=asks_firecrawl,
    )
    await made.detect()
    return made


async def send(database: Database, receiver: FakeReceiver, delays: list[float] = NO_DELAYS) -> int:
    async with Receiver(receiver.url, SECRET, answer_seconds=5) as target:
        return await send_due(database, target, delays)


async def notifications(database: Database) -> list[Any]:
    async with database.transaction() as connection:
        rows = select(*Notification.__table__.columns).order_by(Notification.created_at)
        return list(await connection.execute(rows))


async def crawl(database: Database, *urls: str, took: timedelta = timedelta(0), site: str = SITE) -> str:
    """A crawl of which everything is known, and searchable."""
    crawl_id = str(uuid4())
    began = datetime.now(UTC) - took
    metadata = {"initiated_at": began.isoformat(), "url": site}
    await deliver(database, crawl_id, "crawl.started", at=began, metadata=metadata)
    await deliver_pages(database, crawl_id, *urls)
    await index_pages(database, crawl_id)
    await deliver(database, crawl_id, "crawl.completed")
    return crawl_id


async def test_a_searchable_crawl_is_notified_of_once(database: Database, receiver: FakeReceiver) -> None:
    detector = await detecting(database)
    crawl_id = await crawl(database, A, B)
    assert await detector.detect() == 1
    assert await detector.detect() == 0
    assert await (await detecting(database)).detect() == 0
    assert await send(database, receiver) == 1
    assert await send(database, receiver) == 0
    [message] = receiver.messages
    assert message["type"] == "crawl.searchable"
    data = message["data"]
    assert (data["crawl_id"], data["crawl_url"], data["status"]) == (crawl_id, SITE, "completed")
    assert (data["total_pages"], data["pages_indexed"], data["pages_failed"]) == (2, 2, 0)
    assert data["time_to_searchable_ms"] > 0
    assert message["timestamp"] == data["searchable_at"]
    [row] = await notifications(database)
    assert (row.attempts, row.last_status, row.last_error, row.dead) == (1, 204, None, False)
    assert row.delivered_at is not None


async def test_what_comes_between_two_detections_is_notified_of(database: Database) -> None:
    detector = await detecting(database)
    assert await detector.detect() == 0
    early = await crawl(database, A)
    await deliver(database, "f-1", "crawl.failed", error="no such host")
    assert await detector.detect() == 2
    assert await detector.detect() == 0
    await crawl(database, B)
    assert await detector.detect() == 1
    assert early in {row.crawl_id for row in await notifications(database)}


async def test_a_time_that_means_none_keeps_no_crawl_from_being_notified_of(database: Database) -> None:
    detector = await detecting(database)
    none = {"initiated_at": "0001-01-01T00:00:00Z"}
    await deliver(database, str(uuid4()), "crawl.completed", metadata=none)
    await crawl(database, A)
    assert await detector.detect() == 2


async def test_an_open_crawl_is_no_news(database: Database) -> None:
    detector = await detecting(database)
    crawl_id = str(uuid4())
    await deliver_pages(database, crawl_id, A)
    assert await detector.detect() == 0
    await deliver(database, crawl_id, "crawl.completed")
    assert await detector.detect() == 0
    await index_pages(database, crawl_id)
    assert await detector.detect() == 1


async def test_where_firecrawl_can_be_asked_it_is_notified_of_after_that_and_once(
    database: Database, receiver: FakeReceiver
) -> None:
    detector = await detecting(database, asks_firecrawl=True)
    crawl_id = await crawl(database, A)
    assert await detector.detect() == 0
    await note_settled(database, crawl_id)
    assert await detector.detect() == 1
    await note_settled(database, crawl_id)
    assert await detector.detect() == 0
    await send(database, receiver)
    [message] = receiver.of(crawl_id)
    assert (message["data"]["completeness"], message["data"]["reservation"]) == ("compared", None)


async def test_an_incomplete_crawl_is_not_notified_of_as_searchable(database: Database) -> None:
    detector = await detecting(database, asks_firecrawl=True)
    crawl_id = await crawl(database, A)
    found = reconciliations.Found(ReconcileState.INCOMPLETE, note="some are missing", missing=1)
    for _ in range(reconciliations.CHECKS_OF_INCOMPLETE):
        async with database.transaction() as connection:
            await reconciliations.note_check(connection, crawl_id, found, datetime.now(UTC))
    assert await detector.detect() == 0


async def test_what_was_never_compared_is_notified_of_with_that_reservation(
    database: Database, receiver: FakeReceiver
) -> None:
    detector = await detecting(database)
    crawl_id = await crawl(database, A)
    await detector.detect()
    await send(database, receiver)
    [message] = receiver.of(crawl_id)
    assert message["data"]["completeness"] == "as_delivered"
    assert message["data"]["reservation"].endswith("not compared with Firecrawl")


async def test_what_is_sealed_again_is_notified_of_again(database: Database, receiver: FakeReceiver) -> None:
    detector = await detecting(database)
    crawl_id = await crawl(database, A)
    assert await detector.detect() == 1
    await deliver_pages(database, crawl_id, B)
    assert await detector.detect() == 0
    await index_pages(database, crawl_id)
    assert await detector.detect() == 1
    await send(database, receiver)
    assert sorted(each["data"]["total_pages"] for each in receiver.of(crawl_id)) == [1, 2]


async def test_the_end_has_a_moment_to_be_taken_back(database: Database) -> None:
    detector = await detecting(database, grace_seconds=60)
    await crawl(database, A)
    assert await detector.detect() == 0


async def test_what_happened_before_it_was_set_is_not_notified_of(database: Database) -> None:
    await crawl(database, A)
    await deliver(database, "f-1", "crawl.failed", error="no such host")
    detector = await detecting(database)
    assert await detector.detect() == 0
    await crawl(database, A)
    assert await detector.detect() == 1
    await database.run(outbox.stop_notifying)
    await crawl(database, A)
    assert await (await detecting(database)).detect() == 0


async def test_a_failed_crawl_is_notified_of(database: Database, receiver: FakeReceiver) -> None:
    detector = await detecting(database)
    await deliver(database, "f-1", "crawl.failed", error="no such host")
    assert await detector.detect() == 1
    await deliver_pages(database, "f-2", A)
    await deliver(database, "f-2", "crawl.failed", error="the site is down")
    assert await detector.detect() == 1
    await index_pages(database, "f-2")
    assert await detector.detect() == 1
    assert await detector.detect() == 0
    await send(database, receiver)
    [sent] = receiver.of("f-1")
    assert (sent["type"], sent["data"]["status"]) == ("crawl.failed", "failed")
    assert sent["data"]["error_message"] == "no such host"
    assert {each["type"] for each in receiver.of("f-2")} == {"crawl.failed", "crawl.searchable"}


async def test_a_crawl_slower_than_others_like_it_is_notified_of(
    database: Database, receiver: FakeReceiver
) -> None:
    detector = await detecting(database)
    for minutes in (4, 3, 3.5, 3, 4):
        await crawl(database, A, took=timedelta(minutes=minutes))
    other_site = await crawl(database, A, took=timedelta(minutes=20), site="https://other.example")
    usual = await crawl(database, A, took=timedelta(minutes=5))
    slow = await crawl(database, A, took=timedelta(minutes=20))
    async with database.transaction() as connection:
        await connection.execute(
            update(CrawlSession)
            .where(CrawlSession.crawl_id.not_in([usual, other_site, slow]))
            .values(started_at=CrawlSession.started_at - timedelta(days=1))
            .values(initiated_at=CrawlSession.initiated_at - timedelta(days=1))
            .values(completed_at=CrawlSession.completed_at - timedelta(days=1))
            .values(last_settled_at=CrawlSession.last_settled_at - timedelta(days=1))
        )
        await connection.execute(delete(Notification))
    assert await detector.detect() == 4
    await send(database, receiver)
    assert [each["type"] for each in receiver.of(usual)] == ["crawl.searchable"]
    assert [each["type"] for each in receiver.of(other_site)] == ["crawl.searchable"]
    sent = {each["type"]: each for each in receiver.of(slow)}
    assert sent.keys() == {"crawl.searchable", "crawl.slow"}
    baseline = sent["crawl.slow"]["data"]["baseline"]
    assert baseline["runs"] == 5
    assert baseline["median_ms"] == pytest.approx(3.5 * 60_000, rel=0.05)


async def test_a_crawl_that_is_not_as_usual_or_as_expected_is_notified_of(
    database: Database, receiver: FakeReceiver
) -> None:
    expected = {SITE: [parse_expectation("pages >= 90 % of the mean of the last 10")]}
    detector = Detector(database, 300, 0.0, 0.0, expectations=expected)
    await detector.detect()
    for _ in range(5):
        await crawl(database, *[f"{A}{page}" for page in range(8)])
    assert await detector.detect() == 5
    lost = await crawl(database, A)
    assert await detector.detect() == 3
    assert await detector.detect() == 0
    await send(database, receiver)
    sent = {each["type"]: each["data"] for each in receiver.of(lost)}
    assert sent.keys() == {"crawl.searchable", "crawl.regressed", "crawl.unexpected"}
    assert sent["crawl.regressed"]["baseline"]["regressions"] == [
        "the number of pages is 1; usual is 6 to 10 (median of 5 crawls: 8)"
    ]
    assert sent["crawl.unexpected"]["unmet"] == [
        {"expectation": expected[SITE][0].text, "value": 1.0, "bound": pytest.approx(7.2)}
    ]


async def test_a_stalled_crawl_is_notified_of_once_per_stall(
    database: Database, receiver: FakeReceiver
) -> None:
    detector = await detecting(database)
    crawl_id = str(uuid4())
    await deliver_pages(database, crawl_id, A)
    assert await detector.detect() == 0, "it was queued just now"
    await backdate_queue(database)
    assert await detector.detect() == 1
    assert await detector.detect() == 0
    await index_pages(database, crawl_id)
    await deliver_pages(database, crawl_id, B)
    await forget_that_it_settled_just_now(database)
    await backdate_queue(database)
    assert await detector.detect() == 1
    await send(database, receiver)
    first, second = receiver.of(crawl_id)
    assert first["type"] == second["type"] == "crawl.stalled"
    assert first["data"]["verdict"]["stage"] == "queue"
    assert "is one running?" in first["data"]["verdict"]["reason"]
    assert {first["data"]["pages_indexed"], second["data"]["pages_indexed"]} == {0, 1}


async def test_a_moment_without_work_is_no_stall(database: Database) -> None:
    detector = await detecting(database, stall_patience_seconds=60)
    await deliver_pages(database, "s-1", A)
    await backdate_queue(database)
    assert await detector.detect() == 0


async def backdate_queue(database: Database) -> None:
    async with database.transaction() as connection:
        long_ago = Page.queued_at - timedelta(minutes=10)
        await connection.execute(update(Page).where(Page.state == "queued").values(queued_at=long_ago))


async def forget_that_it_settled_just_now(database: Database) -> None:
    async with database.transaction() as connection:
        long_ago = CrawlSession.last_settled_at - timedelta(minutes=20)
        await connection.execute(update(CrawlSession).values(last_settled_at=long_ago))


async def notification_of_one(database: Database) -> None:
    detector = await detecting(database)
    await crawl(database, A)
    assert await detector.detect() == 1


async def test_a_failed_attempt_is_made_again_as_the_same_message(database: Database) -> None:
    await notification_of_one(database)
    with FakeReceiver(Reply(500, {"detail": "oops"}), OK) as receiver:
        await send(database, receiver)
        [row] = await notifications(database)
        assert (row.attempts, row.last_status, row.delivered_at) == (1, 500, None)
        assert row.last_error == "the receiver answered 500 Internal Server Error"
        await send(database, receiver)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == str(row.id)
    assert first.content == second.content
    [row] = await notifications(database)
    assert (row.attempts, row.last_status, row.last_error) == (2, 204, None)


async def test_a_receiver_gets_the_time_it_asks_for(database: Database) -> None:
    await notification_of_one(database)
    with FakeReceiver(Reply(503, {}, {"Retry-After": "120"}), OK) as receiver:
        await send(database, receiver)
        assert await send(database, receiver) == 0
    [row] = await notifications(database)
    assert timedelta(seconds=115) < row.next_attempt_at - row.attempted_at < timedelta(seconds=130)


async def test_gone_is_gone(database: Database) -> None:
    await notification_of_one(database)
    with FakeReceiver(Reply(410, {})) as receiver:
        await send(database, receiver)
        assert await send(database, receiver) == 0
    [row] = await notifications(database)
    assert (row.dead, row.attempts, row.last_status) == (True, 1, 410)


async def test_after_eight_attempts_it_is_given_up(database: Database) -> None:
    await notification_of_one(database)
    with FakeReceiver(Reply(500, {})) as receiver:
        for _ in range(8):
            assert await send(database, receiver) == 1
        assert await send(database, receiver) == 0
        assert len(receiver.requests) == 8
        [row] = await notifications(database)
        assert (row.dead, row.attempts) == (True, 8)
        receiver.replies = [OK]
        await database.run(lambda connection: outbox.send_again(connection, row.id))
        assert await send(database, receiver) == 1
    [row] = await notifications(database)
    assert (row.dead, row.attempts, row.last_status) == (False, 1, 204)


async def test_only_what_is_known_can_be_sent_again(database: Database) -> None:
    with pytest.raises(NotFoundError):
        await database.run(lambda connection: outbox.send_again(connection, uuid4()))


async def test_a_redirect_is_not_followed(database: Database, receiver: FakeReceiver) -> None:
    await notification_of_one(database)
    with FakeReceiver(Reply(307, {}, {"Location": receiver.url})) as elsewhere:
        await send(database, elsewhere)
    assert receiver.requests == []
    [row] = await notifications(database)
    assert (row.last_status, row.delivered_at) == (307, None)
    assert "set CRAWLSCOPE_NOTIFY_URL to where it leads" in row.last_error


@pytest.mark.parametrize("host", ["exa\u200bmple.com", "i❤.example", "\ud800.example"])
async def test_an_impossible_address_is_a_failed_attempt(host: str) -> None:
    async with Receiver(f"http://{host}/secret-in-the-path", SECRET) as target:
        reply = await target.send(uuid4(), {"type": "crawl.searchable"})
    assert reply.status is None
    assert reply.error is not None
    assert reply.error.startswith("the receiver cannot be reached: ")
    assert reply.error.isprintable()
    assert "secret" not in reply.error


async def test_an_unavailable_receiver_is_retried(database: Database) -> None:
    await notification_of_one(database)
    address = f"http://127.0.0.1:{free_port()}/secret-in-the-path"
    async with Receiver(address, SECRET) as target:
        assert await send_due(database, target) == 1
        assert await send_due(database, target) == 0
    [row] = await notifications(database)
    assert row.last_status is None
    assert row.last_error.startswith("the receiver cannot be reached: ")
    assert "secret-in-the-path" not in row.last_error
    assert timedelta(seconds=4) < row.next_attempt_at - row.attempted_at < timedelta(seconds=20)


async def test_what_a_process_that_died_was_sending_is_sent_by_another(
    database: Database, receiver: FakeReceiver
) -> None:
    await notification_of_one(database)
    [lost] = await database.run(lambda connection: outbox.claim_due(connection, lease=timedelta(0)))
    assert await send(database, receiver) == 1
    [row] = await notifications(database)
    assert (row.attempts, row.last_status) == (2, 204)
    too_late = AttemptReply(500, "too late")
    await database.run(lambda connection: outbox.note_reply(connection, lost, too_late, None))
    [row] = await notifications(database)
    assert (row.last_status, row.dead) == (204, False), "what is said of an older attempt does not count"


async def test_two_processes_do_not_send_the_same(database: Database) -> None:
    await notification_of_one(database)
    assert len(await database.run(outbox.claim_due)) == 1
    assert await database.run(outbox.claim_due) == []


async def test_the_doctor_says_when_the_last_ones_failed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    async def finding() -> Finding:
        found = await find("notifying", settings)
        assert "secret-in-the-path" not in found.words
        return found

    await notification_of_one(database)
    address = f"http://127.0.0.1:{free_port()}/secret-in-the-path"
    settings = load_settings(data_dir=tmp_path, database_url=database_url, notify_url=address)
    assert (await finding()).ok
    async with Receiver(address, SECRET) as target:
        await send_due(database, target, NO_DELAYS)
    said = await finding()
    assert not said.ok
    assert said.words.startswith("the last 1 failed, ")
    assert "the receiver cannot be reached" in said.words
    with FakeReceiver() as back:
        await send(database, back)
    assert (await finding()).ok


async def test_a_deleted_crawl_is_not_notified_of(database: Database, receiver: FakeReceiver) -> None:
    detector = await detecting(database)
    crawl_id = await crawl(database, A)
    await detector.detect()
    async with database.transaction() as connection:
        await connection.execute(delete(CrawlSession).where(CrawlSession.crawl_id == crawl_id))
    assert await send(database, receiver) == 0


async def test_a_crawl_whose_notification_was_deleted_is_not_notified_of_again(
    database: Database, receiver: FakeReceiver
) -> None:
    detector = await detecting(database)
    await crawl(database, A)
    assert await detector.detect() == 1
    later = datetime.now(UTC) + timedelta(days=40)
    assert await prune_notifications(database, Keep(days=30), later) == []  # it was not sent yet
    assert await send(database, receiver) == 1

    [pruned] = await prune_notifications(database, Keep(days=30), later)

    assert pruned.rows == 1
    assert await notifications(database) == []
    assert await (await detecting(database)).detect() == 0
