"""The fake Firecrawl says what the recorded ones said, in their shape.

How it misbehaves is tested by the tests that make it do so.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from tests.support.fakes.firecrawl_http import Reply, Request, Server
from tests.support.fakes.firecrawl_server import Failure, FakeFirecrawl, Page, Site
from tests.support.recordings import read_deliveries, read_recorded

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
    """The shape of all events of a kind: their keys in order, and those of a failed page."""
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

        asked, reported = {"t", "code"}, {"data"}
        assert set(running) - reported - {"next"} == set(recorded["polls"][0]) - asked
        assert set(ended) - reported == set(recorded["final_status"])
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
        reported = {body["error"] for body in receiver.bodies if not body["success"]}
        assert reported == {line["event"]["error"] for line in recorded if not line["event"]["success"]}
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
