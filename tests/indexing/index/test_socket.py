import asyncio
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import Filters, SearchIndex, chunk_id
from crawlscope.indexing.index.socket_client import BYTES_PER_CALL, RemoteIndexes
from crawlscope.indexing.index.socket_path import MAX_SOCKET_PATH_BYTES, socket_path_for
from crawlscope.indexing.index.socket_server import IndexServer
from tests.indexing.index.chunks import BM25, DIMENSION, direction, make_document, urls

SERVE = """
import asyncio, sys
from pathlib import Path
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.socket_server import IndexServer

async def main():
    folder = Path(sys.argv[1])
    await IndexServer(EdgeIndexes(folder), folder / "index.sock").start()
    print("serving", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sock"


@pytest.fixture
async def owned(tmp_path: Path) -> AsyncIterator[EdgeIndexes]:
    indexes = EdgeIndexes(tmp_path)
    yield indexes
    await indexes.aclose()


@pytest.fixture
async def server(owned: EdgeIndexes, path: Path) -> AsyncIterator[IndexServer]:
    server = IndexServer(owned, path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def remotes(path: Path) -> AsyncIterator[RemoteIndexes]:
    indexes = RemoteIndexes(path, connect_timeout_seconds=30.0, call_timeout_seconds=60.0)
    yield indexes
    await indexes.aclose()


@pytest.fixture
async def remote(remotes: RemoteIndexes) -> SearchIndex:
    return await remotes.open("index", DIMENSION)


def mode(path: Path) -> int:
    """0 for a missing file."""
    return path.lstat().st_mode if path.exists() else 0


async def start_owner(folder: Path) -> asyncio.subprocess.Process:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"serving\n"
    return owner


async def kill(owner: asyncio.subprocess.Process) -> None:
    owner.kill()
    await owner.wait()


async def test_calls_fail_at_once_until_a_killed_owner_restarts(tmp_path: Path, remote: SearchIndex) -> None:
    owner = await start_owner(tmp_path)
    try:
        await remote.replace([make_document("https://h/", "apple")])
    finally:
        await kill(owner)
    async with asyncio.timeout(20):  # less than any timeout of its own
        with pytest.raises(IndexUnavailable):
            await remote.size()
        with pytest.raises(IndexUnavailable, match=r"no index process answers at .*index\.sock"):
            await remote.size()

    owner = await start_owner(tmp_path)
    try:
        assert (await remote.size()).chunks == 1
    finally:
        await kill(owner)


async def test_a_missing_owner_is_unavailable(remote: SearchIndex) -> None:
    with pytest.raises(IndexUnavailable, match="no index process answers"):
        await remote.query(direction(0), None, Filters(), 10)


async def test_only_this_user_may_open_the_socket(server: IndexServer, path: Path) -> None:
    assert stat.filemode(mode(path)) == "srw-------"


async def test_a_second_server_is_refused(
    server: IndexServer, owned: EdgeIndexes, path: Path, remote: SearchIndex
) -> None:
    with pytest.raises(IndexUnavailable, match="another process serves the index"):
        await IndexServer(owned, path).start()
    assert (await remote.size()).chunks == 0


async def test_a_stopped_server_leaves_no_file_and_can_start_again(
    server: IndexServer, path: Path, remote: SearchIndex
) -> None:
    assert (await remote.size()).chunks == 0
    await server.stop()
    assert mode(path) == 0
    with pytest.raises(IndexUnavailable):
        await remote.size()
    await server.start()
    assert (await remote.size()).chunks == 0


async def test_a_file_that_is_no_socket_is_left_alone(owned: EdgeIndexes, path: Path) -> None:
    await asyncio.to_thread(path.write_text, "precious")
    with pytest.raises(IndexUnavailable, match="cannot listen"):
        await IndexServer(owned, path).start()
    assert await asyncio.to_thread(path.read_text) == "precious"


async def test_the_owners_errors_reach_the_caller(server: IndexServer, remote: SearchIndex) -> None:
    with pytest.raises(IndexUnusable, match="the embedder was changed"):
        await remote.query([1.0], None, Filters(), 10)


async def test_a_closed_index_behind_a_running_server(
    server: IndexServer, owned: EdgeIndexes, remote: SearchIndex
) -> None:
    await (await owned.open("index", DIMENSION)).aclose()
    with pytest.raises(IndexUnavailable, match="closed"):
        await remote.size()


async def test_large_documents_arrive(server: IndexServer, remote: SearchIndex) -> None:
    text = "apple " * 20_000
    documents = [make_document(f"https://h/{n}", *[text] * 40) for n in range(2)]
    assert len(text) * 40 > BYTES_PER_CALL
    await remote.replace(documents)
    halves = await remote.query(None, BM25.encode_query("apple"), Filters(), 100)
    payloads = await remote.payloads([hit.id for hit in halves.bm25])
    assert {payload["text"] for payload in payloads.values()} == {text}
    assert len(halves.bm25) == 80


async def test_an_answer_too_large_for_a_frame_is_an_error(
    server: IndexServer, remote: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remote.replace([make_document("https://h/", "apple " * 2_000)])
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 5_000)
    with pytest.raises(CrawlscopeError, match="over the limit"):
        await remote.payloads([chunk_id("https://h/", 0)])
    assert (await remote.size()).chunks == 1


async def test_a_frame_over_the_limit_ends_the_connection(server: IndexServer, path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"\xff\xff\xff\xff")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_unreadable_data_ends_the_connection_of_its_sender_only(
    server: IndexServer, path: Path, remote: SearchIndex
) -> None:
    assert (await remote.size()).chunks == 0
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"\x00\x00\x00\x02\xc1\xc1")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    assert (await remote.size()).chunks == 0


async def test_many_calls_share_one_connection(server: IndexServer, remote: SearchIndex) -> None:
    await asyncio.gather(*(remote.replace([make_document(f"https://h/{n}", f"word{n}")]) for n in range(100)))
    answers = await asyncio.gather(
        *(remote.query(None, BM25.encode_query(f"word{n}"), Filters(), 5) for n in range(100))
    )
    assert [urls(answer.bm25) for answer in answers] == [[f"https://h/{n}"] for n in range(100)]


async def test_a_call_that_gets_no_answer_times_out(path: Path) -> None:
    hung_up = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        hung_up.set()

    silent = await asyncio.start_unix_server(hold, path)
    remotes = RemoteIndexes(path, call_timeout_seconds=0.2)
    with pytest.raises(IndexUnavailable, match=r"did not answer within 0\.2 s"):
        await (await remotes.open("index", DIMENSION)).size()
    await remotes.aclose()
    await asyncio.wait_for(hung_up.wait(), 30)
    silent.close()


async def test_a_call_in_progress_fails_when_the_owner_disconnects(path: Path, remote: SearchIndex) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.close()

    async with await asyncio.start_unix_server(hang_up, path):
        with pytest.raises(IndexUnavailable, match="closed the connection during a call"):
            await remote.size()


def test_the_socket_is_in_the_data_folder(tmp_path: Path) -> None:
    assert socket_path_for(tmp_path) == tmp_path / "index.sock"


def test_a_long_path_gives_a_short_private_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("long" * 40)
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        path = socket_path_for(deep)
        assert len(bytes(path)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert socket_path_for(deep) == path
        assert socket_path_for(deep / "other") != path
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))

        path.parent.chmod(0o755)
        with pytest.raises(SettingsError, match="open to others"):
            socket_path_for(deep)


async def test_an_index_is_made_and_dropped_over_the_socket(
    server: IndexServer, remotes: RemoteIndexes, tmp_path: Path
) -> None:
    for number in (1, 2):
        await remotes.make("index-2", DIMENSION)
        index = await remotes.open("index-2", DIMENSION)
        await index.replace([make_document(f"https://h/{number}", "apple")])
        assert (await index.size()).chunks == 1
    assert (await (await remotes.open("index", DIMENSION)).size()).chunks == 0
    await remotes.drop("index-2")
    assert not (tmp_path / "index-2").exists()
    assert (tmp_path / "index").exists()


class SlowToMake(EdgeIndexes):
    """Takes a moment to give up a call."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.making = asyncio.Event()

    async def make(self, name: str, dimension: int) -> None:
        self.making.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)


async def test_a_server_that_stops_leaves_the_socket_of_its_successor(tmp_path: Path) -> None:
    path, slow = tmp_path / "index.sock", SlowToMake(tmp_path)
    former, successor = IndexServer(slow, path), IndexServer(EdgeIndexes(tmp_path), path)
    await former.start()
    call = asyncio.create_task(RemoteIndexes(path).make("index", DIMENSION))
    await slow.making.wait()
    stopping = asyncio.create_task(former.stop())
    while not stopping.done():
        with suppress(IndexUnavailable):
            await successor.start()
            break
        await asyncio.sleep(0.01)
    await stopping
    with pytest.raises(IndexUnavailable):
        await call
    assert (await (await RemoteIndexes(path).open("index", DIMENSION)).size()).chunks == 0
    await successor.stop()
