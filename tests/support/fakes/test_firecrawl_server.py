"""The fake Firecrawl says what the recorded ones said, in their shape, and fails as it is told to."""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from tests.support.fakes.firecrawl_deliveries import Faults, sign
from tests.support.fakes.firecrawl_http import Reply, Request, Server
from tests.support.fakes.firecrawl_recorded import read_deliveries, read_recorded
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Page, Site

SITE = Site(
    [Page("https://a.example/1"), Failure("https://a.example/broken"), Page("https://a.example/2")],
    robots_blocked=["https://a.example/private"],
)


class Receiver:
    """Takes deliveries in."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._server = Server(0, self._take)
        self.url = f"http://127.0.0.1:{self._server.port}/hook"

    def _take(self, request: Request, host: str) -> Reply:
        self.requests.append(request)
        return Reply(202, {})

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request.body for request in self.requests]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


def post(firecrawl: FakeFirecrawl, path: str, **order: Any) -> dict[str, Any]:
    answer = httpx2.post(firecrawl.url + path, json=order)
    assert answer.status_code == 200, answer.text
    return answer.json()


def get(firecrawl: FakeFirecrawl, path: str) -> dict[str, Any]:
    answer = httpx2.get(firecrawl.url + path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def crawl(firecrawl: FakeFirecrawl, receiver: Receiver, **webhook: Any) -> str:
    answer = post(firecrawl, "/v2/crawl", url="https://a.example/", webhook={"url": receiver.url, **webhook})
    return str(answer["id"])


def shape(event: dict[str, Any]) -> tuple[Any, ...]:
    """What all events of a kind have in common: their keys in order, and those of a failed page."""
    document = event["data"][0] if event["data"] else {}
    inner = sorted(document["metadata"]) if document and not event["success"] else []
    return event["type"].partition(".")[2], event["success"], list(event), list(document), inner


def shapes(events: list[dict[str, Any]]) -> set[str]:
    return {repr(shape(event)) for event in events}


class TestEvents:
    @pytest.mark.parametrize(
        ("older", "name"), [(False, "b-v2-crawl-flaky"), (True, "v1-crawl-docs")], ids=["newer", "older"]
    )
    def test_have_the_recorded_shape(self, receiver: Receiver, older: bool, name: str) -> None:
        with FakeFirecrawl(SITE, older=older) as firecrawl:
            firecrawl.wait_until_delivered(crawl(firecrawl, receiver, metadata={"run": "r-1"}))

        recorded = [line["event"] for line in read_deliveries(name)]
        assert shapes(receiver.bodies) == shapes(recorded)
        assert {str(body["metadata"]) for body in receiver.bodies} == {"{'run': 'r-1'}"}

    def test_a_page_has_the_recorded_metadata(self, receiver: Receiver) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.wait_until_delivered(crawl(firecrawl, receiver))

        page = next(body for body in receiver.bodies if body["success"] and body["data"])
        recorded = read_recorded("b-v2-crawl-flaky")["documents"][0]
        assert set(page["data"][0]["metadata"]) == set(recorded["metadata"])

    def test_are_signed_over_the_raw_body(self, receiver: Receiver) -> None:
        with FakeFirecrawl(SITE, secret="s3") as firecrawl:
            firecrawl.wait_until_delivered(crawl(firecrawl, receiver, headers={"X-Custom": "1"}))

        for request in receiver.requests:
            assert request.headers["x-firecrawl-signature"] == f"sha256={sign('s3', request.content)}"
            assert request.headers["x-custom"] == "1"

    def test_the_older_version_never_signs(self, receiver: Receiver) -> None:
        with FakeFirecrawl(SITE, secret="s3", older=True) as firecrawl:
            firecrawl.wait_until_delivered(crawl(firecrawl, receiver))

        assert receiver.requests
        assert not any("x-firecrawl-signature" in request.headers for request in receiver.requests)

    def test_are_filtered_by_the_part_after_the_dot(self, receiver: Receiver) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.wait_until_delivered(crawl(firecrawl, receiver, events=["page"]))

        assert [body["type"] for body in receiver.bodies] == ["crawl.page"] * 3

    def test_without_a_webhook_only_pages_go_where_all_go(self, receiver: Receiver) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.webhook_of_all = receiver.url
            firecrawl.wait_until_delivered(post(firecrawl, "/v1/crawl", url="https://a.example/")["id"])

        assert {body["type"] for body in receiver.bodies} == {"crawl.page"}
        assert {str(body["metadata"]) for body in receiver.bodies} == {"{}"}

    def test_a_receiver_that_is_away_does_not_stop_the_crawl(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            gone = Receiver()
            gone.stop()
            deliveries = firecrawl.wait_until_delivered(crawl(firecrawl, gone))

        assert [delivery.status for delivery in deliveries] == [None] * 5


class TestStatus:
    @pytest.mark.parametrize(
        "name",
        ["b-v2-crawl-flaky", "b-v2-crawl-cancel", "b-v2-batch-append", "v1-crawl-docs", "v2-batch-200"],
    )
    def test_a_recorded_crawl_is_answered_as_recorded(self, name: str) -> None:
        recorded = read_recorded(name)
        final = recorded["final_status"]
        path = recorded["request"]["path"]
        with FakeFirecrawl() as firecrawl:
            job_id = firecrawl.load_recorded(name)
            firecrawl.results_per_page = 1000
            answer = get(firecrawl, f"{path}/{job_id}")

        documents = answer.pop("data")
        if "next" in final:
            assert answer.pop("next").endswith(final.pop("next").rpartition("/")[2])
        assert answer == final
        assert [document["metadata"] for document in documents] == [
            document["metadata"] for document in recorded["documents"]
        ]
        assert [len(document["markdown"]) for document in documents] == [
            document["md_len"] for document in recorded["documents"]
        ]

    def test_recorded_documents_have_the_text_that_was_delivered(self) -> None:
        with FakeFirecrawl() as firecrawl:
            job = firecrawl.jobs[firecrawl.load_recorded("v1-crawl-docs")]

        delivered = [line["event"]["data"] for line in read_deliveries("v1-crawl-docs")]
        texts = {document["markdown"] for data in delivered for document in data}
        assert {document["markdown"] for document in job.documents} == texts

    @pytest.mark.parametrize("name", ["b-v2-crawl-flaky", "b-v2-crawl-cancel", "v2-batch-200"])
    def test_recorded_errors_are_answered_as_recorded(self, name: str) -> None:
        recorded = read_recorded(name)
        with FakeFirecrawl(older=not name.startswith("b-")) as firecrawl:
            job_id = firecrawl.load_recorded(name)
            answer = httpx2.get(f"{firecrawl.url}{recorded['request']['path']}/{job_id}/errors")

        status, body = recorded["errors"]
        assert answer.status_code == status
        assert (answer.json() if status == 200 else answer.text) == body

    @pytest.mark.parametrize(
        ("older", "version", "name"),
        [
            (False, "v2", "b-v2-crawl-flaky"),
            (False, "v1", "b-v1-crawl-nohook"),
            (True, "v2", "v2-batch-200"),
            (True, "v1", "v1-crawl-docs"),
        ],
    )
    def test_of_a_made_up_crawl_has_the_recorded_keys(self, older: bool, version: str, name: str) -> None:
        recorded = read_recorded(name)
        with FakeFirecrawl(SITE, older=older) as firecrawl:
            firecrawl.hold_after = 1
            started = post(firecrawl, f"/{version}/crawl", url="https://a.example/")
            firecrawl.wait_until_scraped(started["id"], 1)
            running = get(firecrawl, f"/{version}/crawl/{started['id']}")
            firecrawl.hold_after = None
            firecrawl.wait_until_ended(started["id"])
            ended = get(firecrawl, f"/{version}/crawl/{started['id']}")

        asked, told = {"t", "code"}, {"data"}
        assert set(running) - told - {"next"} == set(recorded["polls"][0]) - asked
        assert set(ended) - told == set(recorded["final_status"])
        assert set(started) == set(recorded["response"]["body"]) - {"invalidURLs"}
        assert (running["status"], running["completed"], running["total"]) == ("scraping", 1, 3)
        assert (ended["status"], ended["completed"], ended["total"]) == ("completed", 2, 2)
        assert datetime.fromisoformat(ended["expiresAt"]).tzinfo

    def test_errors_have_the_recorded_keys(self) -> None:
        recorded = read_recorded("b-v2-crawl-flaky")["errors"][1]
        with FakeFirecrawl(SITE) as firecrawl:
            job = firecrawl.start("crawl", {"url": "https://a.example/"})
            firecrawl.wait_until_ended(job.id)
            answer = get(firecrawl, f"/v2/crawl/{job.id}/errors")

        assert set(answer) == set(recorded)
        assert [set(error) for error in answer["errors"]] == [set(recorded["errors"][0])]
        assert answer["robotsBlocked"] == ["https://a.example/private"]

    def test_is_paged(self) -> None:
        with FakeFirecrawl(Site.of(25)) as firecrawl:
            firecrawl.results_per_page = 10
            job = firecrawl.start("crawl", {"url": "https://a.example/"})
            firecrawl.wait_until_ended(job.id)
            sizes, following = [], f"{firecrawl.url}/v2/crawl/{job.id}"
            while following:
                answer = httpx2.get(following).json()
                sizes.append(len(answer["data"]))
                following = answer.get("next")

        assert sizes == [10, 10, 5]

    def test_the_older_version_repeats_the_first_part(self) -> None:
        with FakeFirecrawl(Site.of(25), older=True) as firecrawl:
            firecrawl.results_per_page = 10
            job = firecrawl.start("crawl", {"url": "https://a.example/"})
            firecrawl.wait_until_ended(job.id)
            first = get(firecrawl, f"/v2/crawl/{job.id}")

            assert httpx2.get(first["next"]).json() == first

    def test_lists_the_running_crawls(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            firecrawl.hold_after = 0
            job = firecrawl.start("crawl", {"url": "https://a.example/"})

            assert [crawl["id"] for crawl in get(firecrawl, "/v2/crawl/active")["crawls"]] == [job.id]

    def test_forgets_a_job(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl:
            job = firecrawl.start("crawl", {"url": "https://a.example/"})
            firecrawl.expire(job.id)
            answer = httpx2.get(f"{firecrawl.url}/v2/crawl/{job.id}")

        assert answer.status_code == 404
        assert answer.json() == {"success": False, "error": "Job not found"}


class TestCancel:
    def test_drops_the_rest_in_a_burst_and_completes_with_success(self, receiver: Receiver) -> None:
        recorded = read_deliveries("b-v2-crawl-cancel")
        with FakeFirecrawl(Site.of(50)) as firecrawl:
            firecrawl.hold_after = 12
            job_id = crawl(firecrawl, receiver)
            firecrawl.wait_until_scraped(job_id, 12)
            answer = httpx2.delete(f"{firecrawl.url}/v2/crawl/{job_id}")
            firecrawl.wait_until_delivered(job_id)
            status = get(firecrawl, f"/v2/crawl/{job_id}")
            errors = get(firecrawl, f"/v2/crawl/{job_id}/errors")["errors"]

        assert [answer.status_code, answer.json()] == read_recorded("b-v2-crawl-cancel")["cancel"]["resp"]
        assert shapes(receiver.bodies) == shapes([line["event"] for line in recorded])
        told = {body["error"] for body in receiver.bodies if not body["success"]}
        assert told == {line["event"]["error"] for line in recorded if not line["event"]["success"]}
        counted = Counter((body["type"], body["success"]) for body in receiver.bodies)
        assert counted == {
            ("crawl.started", True): 1,
            ("crawl.page", True): 12,
            ("crawl.page", False): 38,
            ("crawl.completed", True): 1,
        }
        assert (status["status"], status["completed"], status["total"]) == ("cancelled", 12, 12)
        assert status["next"].endswith("?skip=12")
        assert {error["code"] for error in errors} == {"UNKNOWN_ERROR"}
        assert len(errors) == 38

    def test_the_older_version_says_nothing_of_dropped_pages(self, receiver: Receiver) -> None:
        with FakeFirecrawl(Site.of(20), older=True) as firecrawl:
            firecrawl.hold_after = 3
            job_id = crawl(firecrawl, receiver)
            firecrawl.wait_until_scraped(job_id, 3)
            httpx2.delete(f"{firecrawl.url}/v1/crawl/{job_id}")
            firecrawl.wait_until_delivered(job_id)

        assert Counter(body["type"] for body in receiver.bodies) == {
            "crawl.started": 1,
            "crawl.page": 3,
            "crawl.completed": 1,
        }


class TestBatch:
    def test_scrapes_the_urls_and_appends_to_itself(self, receiver: Receiver) -> None:
        webhook = {"url": receiver.url}
        with FakeFirecrawl(SITE) as firecrawl:
            urls = ["https://a.example/1", "https://a.example/1", "no url"]
            started = post(firecrawl, "/v2/batch/scrape", urls=urls, webhook=webhook)
            firecrawl.wait_until_delivered(started["id"])
            more = {"urls": ["https://b.example/"], "appendToId": started["id"]}
            appended = post(firecrawl, "/v2/batch/scrape", **more, webhook=webhook)
            firecrawl.wait_until_delivered(started["id"])
            status = get(firecrawl, f"/v2/batch/scrape/{started['id']}")

        assert started["invalidURLs"] == ["no url"]
        assert set(appended) == set(read_recorded("b-v2-batch-append")["append"]["resp"][1])
        assert appended["id"] == started["id"]
        assert Counter(body["type"] for body in receiver.bodies)["batch_scrape.started"] == 2
        scrapes = [document["metadata"]["scrapeId"] for document in status["data"]]
        assert len(set(scrapes)) == 3

    def test_the_older_version_completes_once(self, receiver: Receiver) -> None:
        webhook = {"url": receiver.url}
        with FakeFirecrawl(SITE, older=True) as firecrawl:
            started = post(firecrawl, "/v1/batch/scrape", urls=["https://a.example/1"], webhook=webhook)
            firecrawl.wait_until_delivered(started["id"])
            more = {"urls": ["https://b.example/"], "appendToId": started["id"]}
            post(firecrawl, "/v1/batch/scrape", **more, webhook=webhook)
            firecrawl.wait_until_delivered(started["id"])

        assert [body["type"] for body in receiver.bodies].count("batch_scrape.completed") == 1


class TestFaults:
    def delivered(self, receiver: Receiver, faults: Faults, pages: int = 40) -> list[Any]:
        """The pages' URLs in the order of arrival."""
        receiver.requests.clear()
        with FakeFirecrawl(Site.of(pages), deliveries_at_once=1) as firecrawl:
            firecrawl.faults = faults
            firecrawl.wait_until_delivered(crawl(firecrawl, receiver))
        return [body["data"][0]["metadata"]["sourceURL"] for body in receiver.bodies if body["data"]]

    def test_drop_a_share_the_same_with_the_same_seed(self, receiver: Receiver) -> None:
        first = self.delivered(receiver, Faults(drop=0.3, seed=1))

        assert 15 < len(first) < 40
        assert self.delivered(receiver, Faults(drop=0.3, seed=1)) == first
        assert self.delivered(receiver, Faults(drop=0.3, seed=2)) != first

    def test_drop_what_a_function_says(self, receiver: Receiver) -> None:
        self.delivered(receiver, Faults(drop=lambda event: event.type == "crawl.completed"), pages=2)

        assert sorted(body["type"] for body in receiver.bodies) == [
            "crawl.page",
            "crawl.page",
            "crawl.started",
        ]

    def test_duplicate(self, receiver: Receiver) -> None:
        self.delivered(receiver, Faults(duplicate=1.0), pages=2)

        assert set(Counter(body["webhookId"] for body in receiver.bodies).values()) == {2}

    def test_shuffle_loses_nothing(self, receiver: Receiver) -> None:
        in_order = self.delivered(receiver, Faults())
        shuffled = self.delivered(receiver, Faults(shuffle=10))

        assert shuffled != in_order
        assert sorted(shuffled) == sorted(in_order)

    def test_late_ones_come_after_later_ones(self, receiver: Receiver) -> None:
        late = Faults(late=lambda event: event.number == 0, late_seconds=0.3)
        self.delivered(receiver, late, pages=3)

        assert receiver.bodies[-1]["type"] == "crawl.started"
        assert len(receiver.bodies) == 5

    def test_go_away_and_come_back(self) -> None:
        with FakeFirecrawl(SITE) as firecrawl, httpx2.Client(timeout=0.3) as client:
            url = f"{firecrawl.url}/v2/crawl/active"
            assert client.get(url).status_code == 200
            firecrawl.outage = "refused"
            with pytest.raises(httpx2.ConnectError):
                client.get(url)
            firecrawl.outage = "503"
            assert client.get(url).status_code == 503
            firecrawl.outage = "hanging"
            with pytest.raises(httpx2.ReadTimeout):
                client.get(url)
            firecrawl.outage = None
            assert client.get(url).status_code == 200

    def test_closing_while_a_job_is_held_leaves_no_thread(self) -> None:
        with FakeFirecrawl(Site.of(5)) as firecrawl:
            firecrawl.hold_after = 1
            firecrawl.start("crawl", {"url": "https://a.example/"})
            workers = [thread for thread in threading.enumerate() if "_work" in thread.name]
            assert workers

        for worker in workers:
            worker.join(5)
        assert not any(worker.is_alive() for worker in workers)

    def test_a_job_fails_as_a_whole(self, receiver: Receiver) -> None:
        with FakeFirecrawl(Site.of(5)) as firecrawl:
            firecrawl.hold_after = 2
            job_id = crawl(firecrawl, receiver)
            firecrawl.wait_until_scraped(job_id, 2)
            firecrawl.fail(job_id, "out of memory")
            firecrawl.wait_until_delivered(job_id)
            status = get(firecrawl, f"/v2/crawl/{job_id}")

        assert status["status"] == "failed"
        assert [body["error"] for body in receiver.bodies if body["type"] == "crawl.failed"] == [
            "out of memory"
        ]
