"""The service polls its indexes as long as it runs, whatever error one poll ends with."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from structlog.testing import capture_logs

from crawlscope.core.errors import IndexUnavailable
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.service import IndexDocumentRequest
from crawlscope.processes.index_host import IndexHost, indexes_of
from crawlscope.processes.index_process import embedded_indexes
from crawlscope.processes.parts import worker_parts
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.loopback import LoopbackServer
from tests.support.polling import eventually


def says_why(host: IndexHost, words: str) -> bool:
    try:
        host.require_index()
    except IndexUnavailable as error:
        return words in str(error)
    return False


def serves(host: IndexHost) -> bool:
    try:
        host.require_index()
    except IndexUnavailable:
        return False
    return True


async def rename(database: Database, table: str, name: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(f"ALTER TABLE webhook.{table} RENAME TO {name}"))


async def test_an_unexpected_error_is_logged_once_and_ends_nothing(
    own_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.processes.index_host.RETRY_SECONDS", 0.02)
    await rename(own_database, "index_generations", "elsewhere")
    with FakeEmbeddingServer() as server, capture_logs() as lines:
        settings = Settings(data_dir=tmp_path, embedder="tei", embedder_url=server.url)
        async with embedded_indexes(tmp_path), IndexHost(settings, own_database) as host:
            await eventually(lambda: says_why(host, "unexpected ProgrammingError; see the log"))
            await asyncio.sleep(0.2)
            await rename(own_database, "elsewhere", "index_generations")
            await eventually(lambda: serves(host))
    logged = [line for line in lines if line["event"] == "index_open_failed"]
    assert [line["exc_info"] for line in logged] == [True]
    assert ProgrammingError.__name__ in logged[0]["reason"]


class NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"404 page not found")

    do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""


@contextmanager
def proxy_without_a_server() -> Iterator[str]:
    with LoopbackServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.filterwarnings("ignore:Failed to obtain server version:UserWarning")
async def test_a_proxy_without_a_qdrant_server_is_an_unavailable_index(tmp_path: Path) -> None:
    with proxy_without_a_server() as url:
        indexes = indexes_of(Settings(data_dir=tmp_path, qdrant_url=url))
        for work in (indexes.make("index", 3), indexes.drop("index-2")):
            with pytest.raises(IndexUnavailable, match=r"Qdrant refused a request: .*404"):
                await work
        await indexes.aclose()


async def test_an_index_that_a_worker_has_written_to_is_not_emptied(
    own_database: Database, tmp_path: Path
) -> None:
    document = IndexDocumentRequest(url="https://a.example/", markdown="# A\n\nSome words.")
    with FakeEmbeddingServer() as server:
        settings = Settings(data_dir=tmp_path, embedder="tei", embedder_url=server.url)
        async with embedded_indexes(tmp_path):
            async with worker_parts(settings, own_database) as parts:  # before the API process
                chunks = (await parts.indexing.index_document(document))["chunks"]
            async with IndexHost(settings, own_database) as host:
                await eventually(lambda: serves(host))
                assert (await host.require_index().index.size()).chunks == chunks > 0
