"""The client against a Firecrawl that is newer, older, slow, down, or lies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from crawlscope.core.errors import (
    CrawlscopeError,
    FirecrawlJobUnknown,
    FirecrawlRefused,
    FirecrawlUnavailable,
    SettingsError,
)
from crawlscope.firecrawl.client import FirecrawlClient, Webhook
from crawlscope.firecrawl.schemas import JobKind
from tests.support.fakes.firecrawl_http import Reply
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Page, Site
from tests.support.recordings import read_recorded

START = "https://a.example/"
KEY = "fc-secret-key"
SITE = Site(
    [Page("https://a.example/1"), Failure("https://a.example/broken", code=None, error="It broke.")],
    robots_blocked=["https://a.example/private"],
)

Call = Callable[[FirecrawlClient, str], Any]


@asynccontextmanager
async def asking(
    firecrawl: FakeFirecrawl, api_key: str | None = None, patience_seconds: float = 30.0
) -> AsyncIterator[FirecrawlClient]:
    async with FirecrawlClient(firecrawl.url, api_key, patience_seconds=patience_seconds) as client:
        yield client


def ended(firecrawl: FakeFirecrawl, **request: Any) -> str:
    """The id of a job that has ended."""
    kind = "batch_scrape" if "urls" in request else "crawl"
    return firecrawl.wait_until_ended(firecrawl.start(kind, {"url": START} | request).id).id


async def all_documents(client: FirecrawlClient, job_id: str, kind: JobKind | None = None) -> list[str]:
    return [
        document["metadata"]["sourceURL"]
        async for documents in client.documents(job_id, kind)
        for document in documents
    ]


class TestStart:
    async def test_sends_the_order_and_returns_the_id(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                job_id = await client.start_crawl(
                    START,
                    limit=3,
                    scrape_options={"onlyMainContent": True},
                    options={"crawlEntireDomain": True},
                    webhook=Webhook("http://here/", {"X-Secret": "1"}, {"url": START}),
                )

        assert job_id in firecrawl.jobs
        assert firecrawl.requests[0].path == "/v2/crawl"
        assert firecrawl.requests[0].body == {
            "url": START,
            "limit": 3,
            "scrapeOptions": {"onlyMainContent": True},
            "crawlEntireDomain": True,
            "webhook": {"url": "http://here/", "headers": {"X-Secret": "1"}, "metadata": {"url": START}},
        }

    async def test_without_options_sends_none(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                await client.start_crawl(START)

        assert firecrawl.requests[0].body == {"url": START}

    async def test_a_batch_names_its_invalid_urls(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                batch = await client.start_batch(
                    ["https://a.example/1", "no url"], scrape_options={"onlyMainContent": True}
                )
                again = await client.start_batch(["https://a.example/2"], append_to=batch.id)

        assert batch.invalid_urls == ["no url"]
        assert again.id == batch.id
        assert firecrawl.requests[0].body["onlyMainContent"] is True

    async def test_falls_back_to_v1_and_remembers(self) -> None:
        with FakeFirecrawl(SITE, versions=("v1",), older=True) as firecrawl:
            async with asking(firecrawl) as client:
                job_id = await client.start_crawl(START)
                await client.status(job_id, JobKind.CRAWL)

        asked = [request.path.partition("?")[0] for request in firecrawl.requests]
        assert asked == ["/v2/crawl", "/v1/crawl", f"/v1/crawl/{job_id}"]

    async def test_a_missing_batch_endpoint_does_not_make_the_server_old(self) -> None:
        with FakeFirecrawl(SITE, older=True) as firecrawl:
            job_id = ended(firecrawl, urls=["https://a.example/1"])
            async with asking(firecrawl) as client:
                await client.errors(job_id, JobKind.BATCH_SCRAPE)
                await client.status(job_id, JobKind.BATCH_SCRAPE)

        assert firecrawl.requests[-1].path.startswith("/v2/")

    async def test_is_not_repeated_where_it_may_have_been_accepted(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.lose_answers(1)
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlUnavailable) as caught:
                    await client.start_crawl(START)

        assert caught.value.maybe_done
        assert len(firecrawl.jobs) == 1

    @pytest.mark.parametrize("status", [429, 503])
    async def test_is_repeated_where_it_was_surely_not_accepted(self, status: int) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(status, {"error": "busy"}, {"Retry-After": "0"}), times=2)
            async with asking(firecrawl) as client:
                await client.start_crawl(START)

        assert [request.method for request in firecrawl.requests] == ["POST"] * 3
        assert len(firecrawl.jobs) == 1

    async def test_waits_for_a_server_that_comes_back(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.outage = "refused"
            async with asking(firecrawl) as client:
                starting = asyncio.create_task(client.start_crawl(START))
                await asyncio.sleep(0.1)
                firecrawl.outage = None

                assert await starting in firecrawl.jobs

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (402, "Firecrawl refused (402 Payment Required): Insufficient credits"),
            (403, "Firecrawl refused (403 Forbidden): Insufficient credits"),
        ],
    )
    async def test_a_refusal_is_reported_in_firecrawls_words(self, status: int, said: str) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.refuse_starts(status)
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlRefused) as caught:
                    await client.start_crawl(START)

        assert str(caught.value) == said
        assert caught.value.status_code == status
        assert not caught.value.retryable
        assert len(firecrawl.requests) == 1

    async def test_a_refusal_names_what_validation_minds(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                with pytest.raises(
                    FirecrawlRefused, match=r"^Firecrawl refused \(400 Bad Request\): Bad Request: Required$"
                ):
                    await client.start_crawl("")

    async def test_a_failure_of_the_server_may_have_started_it(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.refuse_starts(500, "Redis is down")
            async with asking(firecrawl) as client:
                with pytest.raises(
                    FirecrawlUnavailable, match="500 Internal Server Error: Redis is down"
                ) as caught:
                    await client.start_crawl(START)

        assert caught.value.maybe_done
        assert len(firecrawl.requests) == 1


class TestStatus:
    async def test_has_the_times_of_a_newer_server(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded("b-v2-crawl-cancel")
            async with asking(firecrawl) as client:
                status = await client.status(job_id)

        assert (status.status, status.completed, status.total) == ("cancelled", 12, 12)
        assert status.created_at == datetime(2026, 11, 23, 12, 6, 10, 854000, UTC)
        assert status.completed_at == datetime(2026, 11, 23, 12, 6, 22, 81000, UTC)
        assert status.expires_at == datetime(2026, 11, 24, 12, 6, 56, tzinfo=UTC)
        assert status.ended

    async def test_does_without_the_times_of_an_older_one(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded("v1-crawl-docs")
            async with asking(firecrawl) as client:
                status = await client.status(job_id, JobKind.CRAWL)

        assert (status.status, status.completed) == ("completed", 61)
        assert status.created_at is None
        assert status.completed_at is None

    async def test_does_not_load_the_documents(self) -> None:
        with FakeFirecrawl(Site.of(50)) as firecrawl:
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                assert (await client.status(job_id)).completed == 50

        assert firecrawl.requests[-1].path.endswith("?limit=1")

    async def test_finds_a_batch_without_its_kind(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded("b-v2-batch-append")
            async with asking(firecrawl) as client:
                assert (await client.status(job_id)).completed == 6
                assert len(await all_documents(client, job_id)) == 6

    @pytest.mark.parametrize(("says", "expired"), [("Job not found", False), ("Job expired", True)])
    async def test_of_a_forgotten_job(self, says: str, expired: bool) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            firecrawl.expire(job_id, says)
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlJobUnknown, match=says) as caught:
                    await client.status(job_id)

        assert caught.value.expired is expired

    @pytest.mark.parametrize("job_id", ["../../v2/team", "a?b", "", "x" * 300])
    async def test_asks_nothing_about_what_is_no_id(self, job_id: str) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlJobUnknown):
                    await client.status(job_id)

        assert firecrawl.requests == []

    async def test_a_failed_job_has_its_error(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.hold_after = 0
            job = firecrawl.start("crawl", {"url": START})
            firecrawl.fail(job.id, "out of memory")
            async with asking(firecrawl) as client:
                status = await client.status(job.id)

        assert (status.status, status.error) == ("failed", "out of memory")

    @pytest.mark.parametrize("state", ["scraping", "completed", "failed", "cancelled"])
    async def test_a_job_without_success_has_a_status_all_the_same(self, state: str) -> None:
        answer = {"success": False, "status": state, "total": 3, "completed": 0, "data": [], "error": "why"}
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, answer))
            async with asking(firecrawl) as client:
                status = await client.status("any")
                assert await all_documents(client, "any") == []

        assert (status.status, status.error) == (state, "why")

    async def test_a_job_need_not_be_counted(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, {"success": False, "status": "failed", "error": "no kickoff"}))
            async with asking(firecrawl) as client:
                status = await client.status("any")

        assert (status.status, status.total, status.completed) == ("failed", 0, 0)

    @pytest.mark.parametrize("said", [{}, {"status": "dreaming"}, {"status": 500}, {"status": ["failed"]}])
    async def test_no_success_and_no_state_of_a_job_is_a_refusal(self, said: dict[str, Any]) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, {"success": False, "error": "no", **said}))
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlRefused, match="no"):
                    await client.status("any")

    async def test_a_start_without_success_is_a_refusal_whatever_its_state(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, {"success": False, "status": "failed", "error": "no"}))
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlRefused, match="no"):
                    await client.start_crawl(START)


class TestNull:
    """Servers whose serialisers write what is not there as null."""

    async def test_for_what_was_found(self) -> None:
        answer = {
            "status": "completed",
            "total": 0,
            "completed": 0,
            "data": None,
            "next": None,
            "error": None,
        }
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, answer))
            async with asking(firecrawl) as client:
                assert (await client.status("any")).ended
                assert await all_documents(client, "any") == []

    async def test_for_what_failed(self) -> None:
        failure = {"id": "1", "timestamp": None, "url": "https://a.example/", "code": None, "error": None}
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, {"errors": [failure], "robotsBlocked": None}))
            async with asking(firecrawl) as client:
                answer = await client.errors("any")
                firecrawl.answer_normally()
                firecrawl.answer_with(Reply(200, {"errors": None, "robotsBlocked": ["https://a.example/b"]}))
                answer_of_none = await client.errors("any")

        assert [(each.url, each.error, each.at) for each in answer.errors] == [
            ("https://a.example/", None, None)
        ]
        assert answer.robots_blocked == []
        assert (answer_of_none.errors, answer_of_none.robots_blocked) == ([], ["https://a.example/b"])

    async def test_for_urls_that_are_none(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, {"success": True, "id": "x", "invalidURLs": None}))
            async with asking(firecrawl) as client:
                assert (await client.start_batch([START])).invalid_urls == []

    async def test_is_no_id_and_no_state(self) -> None:
        nothing = {"success": None, "id": None, "status": None, "total": None, "completed": None}
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(200, nothing))
            async with asking(firecrawl) as client:
                for ask in (client.start_crawl(START), client.status("any"), client.errors("any")):
                    with pytest.raises(FirecrawlUnavailable, match="answered JSON of another shape"):
                        await ask


class TestCancel:
    async def test_cancels(self) -> None:
        with FakeFirecrawl(Site.of(9)) as firecrawl:
            firecrawl.hold_after = 3
            async with asking(firecrawl) as client:
                job_id = await client.start_crawl(START)
                await client.cancel(job_id, JobKind.CRAWL)
                await asyncio.to_thread(firecrawl.wait_until_ended, job_id)

                assert (await client.status(job_id)).status == "cancelled"

    async def test_what_has_ended_is_refused(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlRefused, match="Crawl is already completed") as caught:
                    await client.cancel(job_id, JobKind.CRAWL)

        assert caught.value.status_code == 409

    async def test_an_unknown_job(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlJobUnknown):
                    await client.cancel("unknown")


class TestDocuments:
    async def test_come_page_after_page(self) -> None:
        with FakeFirecrawl(Site.of(25)) as firecrawl:
            firecrawl.results_per_page = 10
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                listing = client.documents(job_id, JobKind.CRAWL)
                sizes = [len(documents) async for documents in listing]

        assert sizes == [10, 10, 5]
        assert listing.status is not None
        assert listing.count == listing.status.completed == 25
        assert listing.status.status == "completed"

    async def test_have_text_and_metadata(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded("v1-crawl-docs")
            async with asking(firecrawl) as client:
                documents = [d async for part in client.documents(job_id) for d in part]

        recorded = read_recorded("v1-crawl-docs")["documents"]
        assert [document["metadata"] for document in documents] == [d["metadata"] for d in recorded]
        assert all(document["markdown"] for document in documents)

    @pytest.mark.parametrize("older", [False, True])
    async def test_a_repeated_first_part_ends_the_listing(self, older: bool) -> None:
        with FakeFirecrawl(Site.of(25), older=older) as firecrawl:
            firecrawl.results_per_page = 10
            firecrawl.repeat_first_part = True
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                listing = client.documents(job_id, JobKind.CRAWL)
                sizes = [len(documents) async for documents in listing]

        assert sizes == [10]
        assert listing.status is not None
        assert (listing.count, listing.status.completed) == (10, 25)
        assert len(firecrawl.requests) == 2

    async def test_the_endless_next_of_a_cancelled_crawl_ends(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded("b-v2-crawl-cancel")
            async with asking(firecrawl) as client:
                listing = client.documents(job_id, JobKind.CRAWL)
                sizes = [len(documents) async for documents in listing]

        assert sizes == [12]
        assert len(firecrawl.requests) == 2

    async def test_the_same_url_twice_in_a_batch_is_two(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl, urls=["https://a.example/1"] * 2)
            async with asking(firecrawl) as client:
                assert len(await all_documents(client, job_id, JobKind.BATCH_SCRAPE)) == 2

    async def test_the_key_never_follows_next_to_another_host(self) -> None:
        with FakeFirecrawl() as other_server, FakeFirecrawl(Site.of(15), api_key=KEY) as firecrawl:
            firecrawl.results_per_page = 10
            firecrawl.next_origin = other_server.url
            job_id = ended(firecrawl)
            async with asking(firecrawl, KEY) as client:
                assert len(await all_documents(client, job_id)) == 15

        assert other_server.requests == []

    async def test_next_stays_below_the_base_path(self) -> None:
        with FakeFirecrawl(Site.of(15), base_path="/firecrawl") as firecrawl:
            firecrawl.results_per_page = 10
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                assert len(await all_documents(client, job_id)) == 15

        assert firecrawl.requests[-1].path == f"/firecrawl/v2/crawl/{job_id}?skip=10"

    async def test_a_cut_emoji_is_no_reason_to_lose_the_results(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            document = {"markdown": "cut \ud83d", "metadata": {"sourceURL": START, "scrapeId": "s"}}
            answer = {"success": True, "status": "completed", "total": 1, "completed": 1, "data": [document]}
            firecrawl.answer_with(Reply(200, answer))
            async with asking(firecrawl) as client:
                assert await all_documents(client, job_id) == [START]


class TestErrors:
    async def test_have_code_and_time(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded("b-v2-crawl-flaky")
            async with asking(firecrawl) as client:
                answer = await client.errors(job_id, JobKind.CRAWL)

        recorded = read_recorded("b-v2-crawl-flaky")["errors"][1]["errors"]
        assert [(e.url, e.code, e.error) for e in answer.errors] == [
            (e["url"], e["code"], e["error"]) for e in recorded
        ]
        assert answer.errors[0].at == datetime.fromisoformat(recorded[0]["timestamp"])

    async def test_some_have_no_code(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                answer = await client.errors(job_id)

        assert [(failure.code, failure.error) for failure in answer.errors] == [(None, "It broke.")]
        assert answer.robots_blocked == ["https://a.example/private"]

    async def test_an_older_server_knows_none_of_a_batch(self) -> None:
        with FakeFirecrawl(versions=("v2",), older=True) as firecrawl:
            job_id = firecrawl.load_recorded("v2-batch-200")
            async with asking(firecrawl) as client:
                answer = await client.errors(job_id, JobKind.BATCH_SCRAPE)

        assert answer.errors == []

    async def test_of_an_unknown_crawl(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlJobUnknown):
                    await client.errors("unknown", JobKind.CRAWL)


EVERY_CALL: dict[str, Call] = {
    "start_crawl": lambda client, job_id: client.start_crawl(START),
    "start_batch": lambda client, job_id: client.start_batch([START]),
    "cancel": lambda client, job_id: client.cancel(job_id),
    "status": lambda client, job_id: client.status(job_id),
    "documents": all_documents,
    "errors": lambda client, job_id: client.errors(job_id),
}
every_call = pytest.mark.parametrize("call", EVERY_CALL.values(), ids=EVERY_CALL)

ONE_OF_FIRECRAWLS = (FirecrawlUnavailable, FirecrawlRefused, FirecrawlJobUnknown)
WRONG_ANSWERS = [
    Reply(200, "<html>a proxy's page</html>"),
    Reply(200, ["a list"]),
    Reply(200, {"success": False, "error": "no"}),
    Reply(301, "", {"Location": "https://elsewhere.example/"}),
    Reply(404, "<html>nginx</html>"),
    Reply(404, {"detail": "no route"}),
    Reply(418, {"error": {"message": "an object"}}),
    Reply(418, {"error": "long and\nof several lines " * 100}),
]
WRONG_SHAPES = [
    Reply(200, {}),
    Reply(200, {"status": 7, "id": [], "errors": "none", "total": 1, "completed": 1}),
    Reply(200, {"status": "dreaming", "id": "", "errors": [3], "total": 1, "completed": 1}),
]


class TestFailureHandling:
    @every_call
    @pytest.mark.parametrize("outage", ["refused", "503", "hanging"])
    async def test_an_outage_is_reported_in_time(self, call: Call, outage: Any) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            firecrawl.outage = outage
            async with asking(firecrawl, patience_seconds=0.4) as client:
                with pytest.raises(FirecrawlUnavailable) as caught:
                    await asyncio.wait_for(call(client, job_id), 30)

        assert caught.value.retryable
        assert firecrawl.url in str(caught.value)

    @every_call
    async def test_a_wrong_answer_is_one_line(self, call: Call) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                for reply in WRONG_ANSWERS:
                    firecrawl.answer_normally()
                    firecrawl.answer_with(reply)
                    with pytest.raises(CrawlscopeError) as caught:
                        await call(client, job_id)

                    assert isinstance(caught.value, ONE_OF_FIRECRAWLS), reply
                    assert "\n" not in str(caught.value)
                    assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("name", "status"), [("start_crawl", 400), ("start_crawl", 500), ("status", 402), ("status", 404)]
    )
    async def test_its_words_can_be_sent_on_and_kept(self, name: str, status: int) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(status, {"success": False, "error": "half an emoji \ud83d, \x00"}))
            async with asking(firecrawl) as client:
                with pytest.raises(ONE_OF_FIRECRAWLS) as caught:
                    await EVERY_CALL[name](client, "any")

        assert str(caught.value).endswith("half an emoji \ufffd, \ufffd")

    @pytest.mark.parametrize("name", sorted(EVERY_CALL.keys() - {"cancel"}))
    async def test_json_of_another_shape_is_no_answer(self, name: str) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            async with asking(firecrawl) as client:
                for reply in WRONG_SHAPES:
                    firecrawl.answer_normally()
                    firecrawl.answer_with(reply)
                    with pytest.raises(FirecrawlUnavailable, match="answered JSON of another shape: "):
                        await EVERY_CALL[name](client, job_id)

    async def test_where_no_firecrawl_is_says_what_to_check(self) -> None:
        with FakeFirecrawl(SITE, versions=()) as firecrawl:
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlRefused, match="Check CRAWLSCOPE_FIRECRAWL_URL"):
                    await client.start_crawl(START)

    @every_call
    async def test_the_key_is_sent_and_never_shown(
        self, call: Call, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(0)
        with FakeFirecrawl(SITE, api_key="another") as firecrawl:
            job_id = ended(firecrawl)
            async with asking(firecrawl, KEY) as client:
                with pytest.raises(FirecrawlRefused) as caught:
                    await call(client, job_id)

        assert firecrawl.requests[-1].authorization == f"Bearer {KEY}"
        assert caught.value.status_code == 401
        assert "Check CRAWLSCOPE_FIRECRAWL_API_KEY" in str(caught.value)
        assert KEY not in str(caught.value) + repr(caught.value) + caplog.text

    async def test_a_password_in_the_url_is_never_shown(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.refuse_starts(500)
            async with FirecrawlClient(firecrawl.url.replace("//", "//me:hush@")) as client:
                with pytest.raises(FirecrawlUnavailable) as caught:
                    await client.start_crawl(START)

        assert (firecrawl.requests[0].authorization or "").startswith("Basic ")
        assert "hush" not in str(caught.value)

    async def test_reading_is_tried_again(self, caplog: pytest.LogCaptureFixture) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            firecrawl.answer_with(Reply(502, "<html>Bad Gateway</html>"), times=1)
            firecrawl.lose_answers(1)
            async with asking(firecrawl) as client:
                assert (await client.status(job_id)).completed == 1

        assert len(firecrawl.requests) == 3
        assert "stamina" not in caplog.text

    async def test_few_times_only(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(500, {"error": "broken"}))
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlUnavailable, match="500 Internal Server Error: broken"):
                    await client.status("any")

        assert len(firecrawl.requests) == 4

    @pytest.mark.parametrize("as_date", [False, True])
    async def test_a_rate_limit_is_waited_for(self, as_date: bool) -> None:
        in_a_second = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
        with FakeFirecrawl(SITE) as firecrawl:
            job_id = ended(firecrawl)
            firecrawl.rate_limit(1, in_a_second if as_date else "1")
            async with asking(firecrawl) as client:
                assert (await client.status(job_id)).completed == 1

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            ({"error": "Rate limit exceeded."}, {"Retry-After": "3600"}),
            ({"error": "Rate limit exceeded.", "retry_after_seconds": 3600}, {}),
            ({"error": "Rate limit exceeded. Upgrade or please retry after 3600s, resets at noon"}, {}),
        ],
        ids=["header", "field", "words"],
    )
    async def test_a_longer_wait_than_patience_is_reported_at_once(
        self, body: dict[str, Any], headers: dict[str, str]
    ) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.answer_with(Reply(429, body, headers))
            async with asking(firecrawl) as client:
                with pytest.raises(FirecrawlUnavailable, match="429 Too Many Requests: Rate limit") as caught:
                    await client.start_crawl(START)

        assert caught.value.retry_after == 3600
        assert not caught.value.maybe_done
        assert len(firecrawl.requests) == 1

    async def test_cancelling_the_caller_ends_the_wait(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.outage = "hanging"
            async with asking(firecrawl, patience_seconds=60) as client:
                asked = asyncio.create_task(client.status("any"))
                await asyncio.to_thread(firecrawl.wait_until_asked)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked

    @pytest.mark.parametrize("url", ["", "firecrawl:3002", "ftp://here/", "http://"])
    def test_an_address_that_is_none(self, url: str) -> None:
        with pytest.raises(SettingsError, match="CRAWLSCOPE_FIRECRAWL_URL"):
            FirecrawlClient(url)

    def test_a_key_that_no_header_carries(self) -> None:
        with pytest.raises(SettingsError, match="CRAWLSCOPE_FIRECRAWL_API_KEY") as caught:
            FirecrawlClient("http://here/", "schlüssel\n")
        assert "schlüssel" not in str(caught.value)
