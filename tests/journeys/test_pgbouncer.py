"""API process and worker use the database through a PgBouncer that gives each transaction any session."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.qdrant_server import FakeQdrant
from tests.support.fleet import migrate, running_fleet
from tests.support.postgres import OwnPostgres, ask, transaction_pooler
from tests.support.stack import eventually, new_crawl_id, page_event

FIRST_VERSION = (1, 21)
"""Earlier ones do not carry prepared statements from one session to another."""


def pgbouncer() -> str | None:
    program = shutil.which("pgbouncer", path="/usr/local/bin:/usr/bin:/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, said.split()[1].split(".")[:2]))
    return program if version >= FIRST_VERSION else None


@pytest.mark.slow
@pytest.mark.skipif(pgbouncer() is None, reason="no PgBouncer of version 1.21 or newer is installed")
def test_a_service_behind_a_transaction_pooler(tmp_path: Path) -> None:
    program = pgbouncer()
    assert program is not None
    with (
        OwnPostgres() as postgres,
        transaction_pooler(postgres, program) as pooled,
        FakeQdrant() as qdrant,
        FakeEmbeddingServer() as embedder,
    ):
        settings = {
            "DATABASE_URL": pooled,
            "DATABASE_DIRECT_URL": postgres.url,
            "QDRANT_URL": qdrant.url,
            "EMBEDDER": "tei",
            "EMBEDDER_URL": embedder.url,
        }
        migrate(tmp_path / "migrating", **settings)
        with running_fleet(tmp_path, serves=1, workers=2, **settings) as fleet:
            crawl_id = new_crawl_id()
            events = [page_event(crawl_id, f"https://example.com/{number}") for number in range(100)]
            assert fleet.deliver(events) == 0, "no delivery was refused"
            [endpoint] = fleet.endpoints
            crawl = eventually(lambda: endpoint.crawl(crawl_id), lambda it: it["pages_pending"] == 0)
            assert (crawl["pages_indexed"], crawl["pages_failed"]) == (100, 0)
            assert endpoint.http.post(f"/api/crawls/{crawl_id}/recount").json()["changed"] == {}
            assert endpoint.search("text")["total"] > 0
            assert endpoint.http.delete(f"/api/crawls/{crawl_id}").status_code == 204
            fleet.stop()
        assert ask(postgres.url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
