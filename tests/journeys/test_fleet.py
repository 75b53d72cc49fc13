"""Several API processes and workers on one PostgreSQL and one Qdrant, without a shared disk."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.fleet import run
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.qdrant_server import FakeQdrant
from tests.support.fleet import ENDED, Fleet, migrate, running_fleet
from tests.support.postgres import OwnPostgres, ask
from tests.support.stack import Stack, eventually, new_crawl_id, page_event

pytestmark = pytest.mark.slow

GRACEFUL_SECONDS = 30
OPEN_ATTEMPTS = "SELECT count(*) FROM webhook.page_attempts WHERE finished_at IS NULL"
FREE_JOBS = "SELECT count(*) FROM queue.pgqueuer WHERE entrypoint = 'index_page' AND status = 'queued'"
INDEXED = "SELECT count(*) FROM webhook.pages WHERE state = 'indexed'"


def test_killed_processes_lose_no_page_and_count_none_twice(tmp_path: Path) -> None:
    result = run(tmp_path, pages=200, kills=6, serves=2, workers=4, programs=None, seed=1)
    assert not result.problems
    for worker in {f"worker-{number}" for number in range(1, 5)} - set(result.kills):
        assert result.by_worker[worker] > sum(result.by_worker.values()) / 4 / 2, "each takes its share"


@pytest.fixture
def embedder() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as server:
        yield server


@pytest.fixture
def fleet(own_database_url: str, embedder: FakeEmbeddingServer, tmp_path: Path) -> Iterator[Fleet]:
    settings = {"DATABASE_URL": own_database_url, "EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    with (
        FakeQdrant() as qdrant,
        running_fleet(tmp_path, serves=1, workers=1, QDRANT_URL=qdrant.url, **settings) as running,
    ):
        yield running


def test_a_worker_that_is_stopped_hands_its_pages_back(
    fleet: Fleet, embedder: FakeEmbeddingServer, own_database_url: str
) -> None:
    """Also where the embedder takes longer than that to answer."""
    crawl_id = new_crawl_id()
    fleet.deliver([page_event(crawl_id, "https://example.com/first")])
    eventually(lambda: ask(own_database_url, INDEXED), lambda number: number == 1)
    embedder.delay_seconds = 2.0 * GRACEFUL_SECONDS
    fleet.deliver([page_event(crawl_id, f"https://example.com/{number}") for number in range(8)])
    eventually(lambda: ask(own_database_url, OPEN_ATTEMPTS), lambda number: number == 8)
    took = fleet.stop()
    assert max(took.values()) < GRACEFUL_SECONDS
    assert "HTTP Request" not in fleet.members["worker-1"].log.read_text(), "not a line for each page"
    assert ask(own_database_url, FREE_JOBS) == 8
    assert ask(own_database_url, OPEN_ATTEMPTS) == 0


def test_deliveries_in_progress_are_answered_before_an_endpoint_ends(
    fleet: Fleet, own_database_url: str
) -> None:
    [endpoint], accepted = fleet.endpoints, list[str]()
    crawl_id = new_crawl_id()

    def deliver_until_refused(sender: int) -> None:
        for number in range(10_000):
            url = f"https://example.com/{sender}/{number}"
            try:
                assert post(endpoint, page_event(crawl_id, url)) == 202
            except httpx2.HTTPError:
                return
            accepted.append(url)

    senders = [threading.Thread(target=deliver_until_refused, args=(number,)) for number in range(8)]
    for sender in senders:
        sender.start()
    eventually(lambda: len(accepted), lambda number: number >= 100)
    took = fleet.stop()
    for sender in senders:
        sender.join()
    assert max(took.values()) < GRACEFUL_SECONDS
    stored = ask(own_database_url, "SELECT count(*) FROM webhook.pages")
    assert stored == len(accepted), "what was stored was answered"


def post(endpoint: Stack, event: dict[str, object]) -> int:
    """With a connection of its own."""
    headers = {"Connection": "close"}
    return endpoint.http.post("/api/webhook/firecrawl", json=event, headers=headers).status_code


@pytest.mark.parametrize("hangs", [False, True], ids=["gone", "hangs"])
def test_processes_end_in_time_without_the_database(
    embedder: FakeEmbeddingServer, tmp_path: Path, hangs: bool
) -> None:
    """The pages in progress cannot be handed back: other workers get them after their silence."""
    settings = {"EMBEDDER": "tei", "EMBEDDER_URL": embedder.url}
    with OwnPostgres() as postgres, FakeQdrant() as qdrant:
        settings |= {"DATABASE_URL": postgres.url, "QDRANT_URL": qdrant.url}
        migrate(tmp_path / "migrating", **settings)
        with running_fleet(tmp_path, serves=1, workers=1, **settings) as fleet:
            crawl_id = new_crawl_id()
            fleet.deliver([page_event(crawl_id, "https://example.com/first")])
            eventually(lambda: ask(postgres.url, INDEXED), lambda number: number == 1)
            embedder.delay_seconds = 2.0 * GRACEFUL_SECONDS
            fleet.deliver([page_event(crawl_id, f"https://example.com/{number}") for number in range(8)])
            eventually(lambda: ask(postgres.url, OPEN_ATTEMPTS), lambda number: number == 8)
            with ExitStack() as meanwhile:
                if hangs:
                    meanwhile.enter_context(postgres.hanging())
                else:
                    postgres.kill()
                took = fleet.stop({1} if hangs else ENDED)
            assert max(took.values()) < GRACEFUL_SECONDS
            postgres.start()
            assert ask(postgres.url, "SELECT count(*) FROM queue.pgqueuer") == 8
