"""The version before the newest migration works beside this one, on the tables of this one."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crawlscope.database import schema
from crawlscope.database.revision import NEWEST
from tests.fleet import INDEXED_BY, WAITING
from tests.record_schemas import checked_out, python_path
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.qdrant_server import FakeQdrant
from tests.support.fleet import attempts_by_member, migrate, running_fleet
from tests.support.postgres import OwnPostgres, ask
from tests.support.stack import eventually, new_crawl_id, page_event

pytestmark = pytest.mark.slow

PAGES = 40
STARTS_AGAIN = "0023"
"""From this revision on, a version also starts on the tables of the next one."""
REVISION = "SELECT version_num FROM public.crawlscope_alembic_version"


@pytest.fixture(scope="module")
def version_before() -> Iterator[Path]:
    """The package as it was before the newest migration."""
    [migration] = (schema.MIGRATIONS / "versions").glob(f"{NEWEST}_*.py")
    command = ["git", "log", "--diff-filter=A", "--format=%H", "-1", "--", str(migration)]
    run = subprocess.run(command, cwd=migration.parent, capture_output=True, text=True, check=False)
    before = f"{run.stdout.strip()}^"
    known = subprocess.run(["git", "cat-file", "-e", before], capture_output=True, check=False)
    if known.returncode != 0:
        pytest.skip("Git does not have the version before here")
    with checked_out(before) as source:
        yield source


def test_two_versions_work_side_by_side(version_before: Path, tmp_path: Path) -> None:
    """Both accept and index pages of the same crawls, the one before also when it starts again."""
    crawl_ids = [new_crawl_id(), new_crawl_id()]

    def pages(first: int) -> Iterator[dict[str, Any]]:
        for number in range(first, first + PAGES):
            url = f"https://example.com/{number}"
            yield page_event(crawl_ids[number % 2], url, markdown=f"# Page {number}\n\nSome text.")

    with OwnPostgres() as postgres, FakeQdrant() as qdrant, FakeEmbeddingServer() as embedder:
        settings = {
            "DATABASE_URL": postgres.url,
            "QDRANT_URL": qdrant.url,
            "EMBEDDER": "tei",
            "EMBEDDER_URL": embedder.url,
        }
        with python_path(version_before):
            migrate(tmp_path / "migrating-before", **settings)
        revision_before = str(ask(postgres.url, REVISION))
        assert revision_before < NEWEST
        with running_fleet(tmp_path, serves=0, workers=0, **settings) as fleet:
            fleet.keep_running()
            fleet.add_endpoint("serve-before", version_before)
            fleet.add("worker-before", "worker", source=version_before)
            fleet.wait_until_ready()
            fleet.deliver(pages(0))
            migrate(tmp_path / "migrating", **settings)
            assert ask(postgres.url, REVISION) == NEWEST
            fleet.add_endpoint("serve-now")
            fleet.add("worker-now", "worker")
            fleet.wait_until_ready()
            fleet.deliver(pages(PAGES))
            settle(postgres)
            for member in ("serve-before", "worker-before") if revision_before >= STARTS_AGAIN else ():
                fleet.members[member].kill()
            fleet.deliver(pages(2 * PAGES))
            settle(postgres)
            fleet.wait_until_ready()
            before, now = fleet.endpoints
            for crawl_id in crawl_ids:
                for endpoint in fleet.endpoints:
                    assert endpoint.crawl(crawl_id)["pages_indexed"] == 3 * PAGES // 2
                    changed = endpoint.http.post(f"/api/crawls/{crawl_id}/recount").json()["changed"]
                    assert not changed, endpoint.data_dir.name
            fleet.deliver([page_event(crawl_ids[0], "https://example.com/last", markdown="The last one.")])
            settle(postgres)
            for endpoint in (before, now):
                assert endpoint.search("last", mode="keyword")["results"][0]["url"].endswith("/last")
            assert set(attempts_by_member(fleet, json.loads(str(ask(postgres.url, INDEXED_BY))))) == {
                "worker-before",
                "worker-now",
            }
            fleet.stop()


def settle(postgres: OwnPostgres) -> None:
    eventually(lambda: ask(postgres.url, WAITING), lambda waiting: waiting == 0)
