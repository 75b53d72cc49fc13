"""A page changes: it is fetched again, search finds what is new, and receivers are notified."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.firecrawl_http import Reply
from tests.support.fakes.firecrawl_server import FakeFirecrawl, Page
from tests.support.fakes.notification_receiver import OK, SECRET, FakeReceiver
from tests.support.fakes.website import Website, html
from tests.support.stack import RECEIVE_TOKEN, Stack, eventually, log_of, running_stack

ENDPOINT = "/api/webhook/changedetection"


@pytest.fixture(scope="module")
def receiver() -> Iterator[FakeReceiver]:
    with FakeReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def embedder() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as running:
        yield running


def settings(embedder: FakeEmbeddingServer, **more: str) -> dict[str, str]:
    return {"EMBEDDER": "tei", "EMBEDDER_URL": embedder.url, "WORKERS": "1", **more}


@pytest.fixture(scope="module")
def stack(
    embedder: FakeEmbeddingServer, receiver: FakeReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    own = settings(embedder, ALLOW_PRIVATE_TARGETS="true", NOTIFY_URL=receiver.url, NOTIFY_SECRET=SECRET)
    with running_stack(tmp_path_factory.mktemp("changes") / "data", **own) as running:
        yield running


@pytest.fixture
def site() -> Iterator[Website]:
    with Website({"/page": html("<p>The word is heliotrope.</p>", title="A page")}) as running:
        yield running


def notification(url: str, **more: Any) -> dict[str, Any]:
    return {"watch_url": url, "watch_id": str(uuid4()), "diff": "something", **more}


def change_of(stack: Stack, change_id: str) -> dict[str, Any]:
    changes = stack.http.get("/api/changes", params={"limit": 1000}).json()["changes"]
    return next(each for each in changes if each["id"] == change_id)


def settled(stack: Stack, change_id: str) -> dict[str, Any]:
    return eventually(
        lambda: change_of(stack, change_id),
        lambda change: change["rescrape_status"] not in ("waiting", "running"),
        60,
    )


def test_what_changed_is_found_and_its_time_is_known(stack: Stack, site: Website) -> None:
    url = f"{site.url}/page"
    first = stack.start_crawl({"url": url, "limit": 1}).json()["crawl_id"]
    eventually(lambda: stack.crawl(first), lambda crawl: crawl["sealed"], 120)
    assert stack.search("xylographer", mode="keyword")["total"] == 0

    site.pages["/page"] = html("<p>The word is xylographer.</p>", title="A page")
    detected_at = datetime.now(UTC)
    sent = notification(url, detected_at=detected_at.isoformat(), watch_title="A page")
    answer = stack.http.post(ENDPOINT, json=sent)
    assert answer.status_code == 202, answer.text
    taken = answer.json()
    assert taken["status"] == "queued"

    change = settled(stack, taken["change_id"])
    assert (change["rescrape_status"], change["crawl_id"]) == ("indexed", taken["crawl_id"])
    assert (change["watch_url"], change["watch_id"]) == (url, sent["watch_id"])
    assert change["metadata"] == {"watch_title": "A page"}
    assert change["rescrape_error"] is None
    [hit] = stack.search("xylographer", mode="keyword")["results"]
    assert hit["url"] == url
    indexed_at = datetime.fromisoformat(change["indexed_at"])
    took_ms = (indexed_at - detected_at).total_seconds() * 1000
    assert change["change_to_searchable_ms"] == pytest.approx(took_ms, abs=1)
    assert 0 < took_ms < 60_000
    crawl = stack.crawl(taken["crawl_id"])
    assert (crawl["crawl_url"], crawl["pages_indexed"], crawl["engine"]) == (url, 1, "builtin")

    again = stack.http.post(ENDPOINT, json=sent | {"diff": "sent once more"})
    assert (again.status_code, again.json()) == (202, taken | {"status": "duplicate"})


def test_the_crawl_is_notified_and_logged(stack: Stack, site: Website, receiver: FakeReceiver) -> None:
    answer = stack.http.post(ENDPOINT, json=notification(f"{site.url}/page"))
    crawl_id = answer.json()["crawl_id"]
    receiver.replies_to[crawl_id] = [Reply(500, {})]
    first, second = eventually(lambda: receiver.of(crawl_id), lambda it: len(it) == 2, 120)
    assert first == second
    assert (first["type"], first["data"]["status"]) == ("crawl.searchable", "completed")

    def log() -> dict[str, Any]:
        listed = stack.http.get("/api/notifications", params={"state": "delivered", "limit": 1000}).json()
        return {each["crawl_id"]: each for each in listed["notifications"]}

    row = eventually(log, lambda it: crawl_id in it)[crawl_id]
    assert (row["attempts"], row["last_status"], row["state"]) == (2, 204, "delivered")
    assert row["next_attempt_at"] is None
    assert row["payload"] == first
    sent = [each for each in receiver.requests if each.headers["webhook-id"] == row["id"]]
    assert len(sent) == 2

    resent = stack.http.post(f"/api/notifications/{row['id']}/resend")
    assert (resent.status_code, resent.json()) == (202, {"id": row["id"], "state": "pending"})
    eventually(lambda: receiver.of(crawl_id), lambda it: len(it) == 3, 120)
    assert stack.http.post(f"/api/notifications/{uuid4()}/resend").status_code == 404
    assert stack.http.get("/api/notifications", params={"state": "lost"}).status_code == 422


def test_by_the_token_in_the_url_which_stays_secret(stack: Stack, site: Website) -> None:
    sent = notification(f"{site.url}/page")
    assert stack.anonymous.post(ENDPOINT, json=sent).status_code == 401
    assert stack.anonymous.post(f"{ENDPOINT}/wrong", json=sent).status_code == 401
    taken = stack.anonymous.post(f"{ENDPOINT}/{RECEIVE_TOKEN}", json=sent)
    assert taken.status_code == 202, taken.text
    assert settled(stack, taken.json()["change_id"])["rescrape_status"] in ("indexed", "unchanged")
    shown = stack.http.get("/api/metrics/requests", params={"limit": 1000, "url": "changedetection"}).text
    assert RECEIVE_TOKEN not in shown


def test_changedetections_own_text_names_any_page(stack: Stack, site: Website) -> None:
    url = f"{site.url}/wiki/Heron_(bird)"
    site.pages["/wiki/Heron_(bird)"] = html("<p>The word is ardea.</p>", title="Heron")
    title = f"ChangeDetection.io Notification - {url}"
    sent = {"title": title, "message": f"{url} had a change.\n---\n(added) ardea\n---\n", "type": "info"}
    change = settled(stack, stack.http.post(ENDPOINT, json=sent).json()["change_id"])
    assert (change["watch_url"], change["rescrape_error"]) == (url, None)
    assert stack.search("ardea", mode="keyword")["total"] == 1


def test_a_page_that_is_gone_is_said_so_and_found_no_more(stack: Stack, site: Website) -> None:
    url = f"{site.url}/gone"
    site.pages["/gone"] = html("<p>The word is parsnip.</p>", title="A page that goes")
    first = stack.start_crawl({"url": url, "limit": 1}).json()["crawl_id"]
    eventually(lambda: stack.crawl(first), lambda crawl: crawl["sealed"], 120)
    assert stack.search("parsnip", mode="keyword")["total"] == 1

    del site.pages["/gone"]
    taken = stack.http.post(ENDPOINT, json=notification(url)).json()
    change = settled(stack, taken["change_id"])
    eventually(lambda: stack.search("parsnip", mode="keyword")["total"], lambda total: total == 0, 120)
    assert (change["rescrape_status"], change["indexed_at"]) == ("failed", None)
    assert "404" in change["rescrape_error"]
    assert change["change_to_searchable_ms"] is None


def test_without_a_time_the_same_words_are_one_change(stack: Stack, site: Website) -> None:
    sent = notification(f"{site.url}/page")
    first = stack.http.post(ENDPOINT, json=sent).json()
    assert stack.http.post(ENDPOINT, json=sent).json()["status"] == "duplicate"
    other = stack.http.post(ENDPOINT, json=sent | {"diff": "and something else"}).json()
    assert other["status"] == "queued"
    assert other["change_id"] != first["change_id"]
    listed = stack.http.get("/api/changes", params={"url": site.url, "limit": 1}).json()
    assert (len(listed["changes"]), listed["total"]) == (1, 2)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"It changed.", 400, "not JSON"),
        (b"[]", 422, "watch_url"),
        (b'{"message": "it changed"}', 422, "watch_url"),
        (b'{"watch_url": "{{ watch_url }}"}', 422, "cannot crawl"),
        (b'{"watch_url": "ftp://a.example/"}', 422, "cannot crawl"),
    ],
)
def test_what_cannot_be_is_said_so(stack: Stack, body: bytes, status: int, says: str) -> None:
    answer = stack.http.post(ENDPOINT, content=body)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert stack.http.post(ENDPOINT, content=b"<p>", headers={"Content-Type": "text/html"}).status_code == 415


@pytest.mark.slow
def test_through_firecrawl_also_after_an_outage(
    embedder: FakeEmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = Page("https://docs.example/page", "# A page\n\nThe word is marginalia, and more of them.")
    with FakeFirecrawl() as firecrawl:
        firecrawl.site.outcomes[:] = [page]
        own = settings(embedder, FIRECRAWL_URL=firecrawl.url, FIRECRAWL_WEBHOOK_SECRET="")
        with running_stack(tmp_path_factory.mktemp("changes") / "data", **own) as stack:
            firecrawl.answer_with(Reply(429, {"error": "slow down"}, {"Retry-After": "2"}), times=5)
            answer = stack.http.post(ENDPOINT, json=notification(page.url))
            assert answer.status_code == 202, answer.text
            assert answer.json()["crawl_id"] is None
            change = settled(stack, answer.json()["change_id"])
            assert change["rescrape_status"] == "indexed"
            assert change["crawl_id"] in firecrawl.jobs
            assert stack.crawl(change["crawl_id"])["engine"] == "firecrawl"
            assert stack.search("marginalia", mode="keyword")["total"] == 1
            _refuses_private_pages(stack)
            assert stack.http.post(f"/api/notifications/{uuid4()}/resend").status_code == 422


def _refuses_private_pages(stack: Stack) -> None:
    listed = stack.http.get("/api/metrics/crawls").json()["total"]
    sent = notification("http://127.0.0.1:9/page", detected_at=datetime.now(UTC).isoformat())
    for _ in range(2):
        answer = stack.http.post(ENDPOINT, json=sent)
        assert answer.status_code == 422
        assert "CRAWLSCOPE_ALLOW_PRIVATE_TARGETS" in answer.json()["detail"]
    [change] = stack.http.get("/api/changes", params={"url": "127.0.0.1"}).json()["changes"]
    assert (change["rescrape_status"], change["crawl_id"]) == ("refused", None)
    assert "private address" in change["rescrape_error"]
    assert stack.http.get("/api/metrics/crawls").json()["total"] == listed


@pytest.mark.slow
def test_pending_notifications_are_sent_after_a_restart(
    embedder: FakeEmbeddingServer, site: Website, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("changes") / "data"
    own = settings(embedder, ALLOW_PRIVATE_TARGETS="true")
    with FakeReceiver(Reply(503, {}, {"Retry-After": "25"}), OK) as receiver:
        own |= {"NOTIFY_URL": receiver.url, "NOTIFY_SECRET": SECRET}
        with running_stack(folder, **own) as stack:
            crawl_id = stack.http.post(ENDPOINT, json=notification(f"{site.url}/page")).json()["crawl_id"]
            eventually(lambda: receiver.of(crawl_id), bool, 120)
        assert len(receiver.requests) == 1
        with running_stack(folder, **own) as stack:
            eventually(
                lambda: stack.http.get("/api/notifications", params={"state": "delivered"}).json()["total"],
                lambda total: total == 1,
                60,
            )
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert len(receiver.of(crawl_id)) == 2
    assert SECRET not in log_of(folder).read_text()
