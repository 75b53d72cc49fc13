"""The examples of the documentation work as they are written."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from crawlscope.core.secrets import notify_secret
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import SearchIndex
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.index.socket_server import IndexServer
from crawlscope.models import OperationMetric
from crawlscope.notifications.sending import Receiver
from tests.support.documentation import PAGES, blocks, page, sections
from tests.support.fakes.loopback import free_port
from tests.support.fakes.notification_receiver import SECRET
from tests.support.stack import eventually

HOW_TO = {section.title: section for section in sections(page("docs/how-to.md"), level=2)}
DIMENSION = 384
SQL = [(path.name, statement) for path in PAGES for statement in blocks(path.read_text(), "sql")]


@asynccontextmanager
async def owned_index(data_dir: Path) -> AsyncIterator[SearchIndex]:
    """The work of the index process for the programs beside it."""
    indexes = EdgeIndexes(data_dir)
    server = IndexServer(indexes, socket_path_for(data_dir))
    await server.start()
    try:
        yield await indexes.open("index", DIMENSION)
    finally:
        await server.stop()
        await indexes.aclose()


def wait_until_it_listens(port: int) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(listens, bool)


async def run(program: str, database_url: str, data_dir: Path) -> str:
    own = {"CRAWLSCOPE_DATABASE_URL": database_url, "CRAWLSCOPE_DATA_DIR": str(data_dir)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLSCOPE_")}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env=inherited | own, timeout=120, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


async def test_documents_are_indexed_from_python(database_url: str, tmp_path: Path) -> None:
    section = HOW_TO["Index documents from Python"]
    [program] = section.blocks("python")
    async with owned_index(tmp_path) as index:
        printed = await run(program, database_url, tmp_path)
        again = await run(program.replace("wiki-import", "next-import"), database_url, tmp_path)
        assert (await index.size()).chunks == 1
    assert f"`{printed}`" in section.text
    assert "'state': 'unchanged'" in again


async def test_own_code_is_measured(database: Database, database_url: str, tmp_path: Path) -> None:
    [program] = HOW_TO["Measure your own code"].blocks("python")
    assert (await run(program, database_url, tmp_path)).endswith("ms, True")
    async with database.transaction() as connection:
        [operation] = (await connection.execute(select(OperationMetric.__table__))).all()
    assert (operation.operation_type, operation.crawl_id) == ("export", "wiki-import")
    assert operation.extra_metadata == {"format": "csv", "rows": 2}


@contextmanager
def running(program: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


async def test_notifications_are_verified(tmp_path: Path) -> None:
    [program] = HOW_TO["Get notifications"].blocks("python")
    secret, port = notify_secret(Settings(data_dir=tmp_path)), free_port()
    url = f"http://127.0.0.1:{port}/"
    payload = {"type": "crawl.searchable", "data": {"crawl_url": "https://a.example"}}
    with running(program, PORT=str(port), CRAWLSCOPE_NOTIFY_SECRET=secret) as hook:
        await asyncio.to_thread(wait_until_it_listens, port)
        async with Receiver(url, secret) as right, Receiver(url, SECRET) as wrong:
            assert (await wrong.send(uuid4(), payload)).status == 401
            assert (await right.send(uuid4(), payload)).status == 204
        assert hook.stdout is not None
        line = await asyncio.to_thread(hook.stdout.readline)
        assert line == 'crawl.searchable "https://a.example"\n'


@pytest.mark.parametrize(("name", "statement"), SQL)
async def test_statements_run(database: Database, name: str, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement))
