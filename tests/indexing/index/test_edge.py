import asyncio
import shutil
import sys
import threading
from pathlib import Path

import pytest
import qdrant_edge as engine

from crawlscope.core.errors import IndexUnavailable, IndexUnusable
from crawlscope.indexing.index import edge, optimizing
from crawlscope.indexing.index.edge import POINTS_PER_UPDATE, EdgeIndex
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.edge_shard import sync
from crawlscope.indexing.index.optimizing import Goal
from crawlscope.indexing.index.port import Filters, document_key
from tests.indexing.index.chunks import BM25, DIMENSION, direction, make_document

WRITE_AND_WAIT = """
import asyncio, sys, time
from pathlib import Path
from crawlscope.indexing.index.edge import EdgeIndex
from tests.indexing.index.chunks import DIMENSION, make_document

async def main():
    index = EdgeIndex.open(Path(sys.argv[1]), DIMENSION)
    texts = [f"apple number{n}" for n in range(150)]
    await index.replace([make_document("https://h/", *texts)])
    await index.replace([make_document("https://h/", *texts[:149])])
    print("written", flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


async def test_writes_survive_kill_9(folder: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITE_AND_WAIT, str(folder), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"written\n"
        with pytest.raises(IndexUnavailable, match="in use by another process: stop that one first"):
            EdgeIndex.open(folder, DIMENSION)
    finally:
        writer.kill()
        await writer.wait()

    index = EdgeIndex.open(folder, DIMENSION)
    assert (await index.size()).chunks == 149
    found = await index.query(direction(0), BM25.encode_query("number148"), Filters(crawl_id="crawl-1"), 5)
    assert [hit.document for hit in found.bm25] == [document_key("https://h/")]
    assert len(found.dense) == 5
    await index.aclose()


class Killed(BaseException):
    """Ends a process at once."""


class DyingShard:
    """Is killed by the second change."""

    def __init__(self, shard: engine.EdgeShard) -> None:
        self.shard, self.changes = shard, 0

    def update(self, change: engine.UpdateOperation) -> None:
        self.changes += 1
        if self.changes == 2:
            raise Killed
        self.shard.update(change)


async def test_what_a_killed_writer_began_is_gone(folder: Path) -> None:
    index = EdgeIndex.open(folder, DIMENSION)
    await index.replace([make_document("https://h/", "apple")])
    whole = index._shard
    index._shard = DyingShard(whole)  # type: ignore[assignment]
    with pytest.raises(Killed):
        await index.replace([make_document("https://h/pear", "pear", "apple")])
    whole.close()

    index = EdgeIndex.open(folder, DIMENSION)
    assert (await index.size()).chunks == 1
    assert len((await index.query(None, BM25.encode_query("apple"), Filters(), 5)).bm25) == 1
    await index.aclose()


async def test_a_closed_index_can_be_opened_again(folder: Path) -> None:
    first = EdgeIndex.open(folder, DIMENSION)
    await first.replace([make_document("https://h/", "apple")])
    await first.aclose()
    await first.aclose()
    with pytest.raises(IndexUnavailable, match="closed"):
        await first.size()

    second = EdgeIndex.open(folder, DIMENSION)
    size = await second.size()
    assert size.chunks == 1
    assert size.bytes is not None
    assert size.bytes > 10_000
    await second.aclose()


async def test_another_dimension_is_refused_with_the_remedy(folder: Path) -> None:
    await EdgeIndex.open(folder, DIMENSION).aclose()
    with pytest.raises(IndexUnusable, match="7 dimensions: run `crawlscope reindex`"):
        EdgeIndex.open(folder, 7)
    await EdgeIndex.open(folder, DIMENSION).aclose()


def damage(folder: Path, pattern: str) -> None:
    (folder / "wal/first-index").touch()
    for file in folder.glob(pattern):
        file.write_bytes(b"\0damaged")


@pytest.mark.parametrize("damaged", ["edge_config.json", "wal/first-index", "segments/*/segment.json"])
async def test_a_damaged_index_is_refused_with_the_remedy(folder: Path, damaged: str) -> None:
    index = EdgeIndex.open(folder, DIMENSION)
    await index.replace([make_document("https://h/", "apple")])
    await index.aclose()
    damage(folder, damaged)
    with pytest.raises(IndexUnusable, match="cannot be read: run `crawlscope reindex`") as caught:
        EdgeIndex.open(folder, DIMENSION)
    assert "\n" not in str(caught.value)


async def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexUnusable, match="cannot be read"):
        EdgeIndex.open(tmp_path / "file" / "index", DIMENSION)


async def test_a_large_document_does_not_block_the_event_loop(folder: Path) -> None:
    index = EdgeIndex.open(folder, DIMENSION)
    document = make_document("https://h/", *[f"word{n}" for n in range(60 * POINTS_PER_UPDATE)])
    turns = 0
    writing = asyncio.create_task(index.replace([document]))
    while not writing.done():
        await index.query(direction(0), None, Filters(), 1)
        turns += 1
    await writing
    assert turns >= 60, "a query waits for one change"
    await index.aclose()


def flushed_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("segments/*/mutable_id_tracker.versions"))


async def grown(folder: Path, before: int) -> None:
    while flushed_bytes(folder) == before:  # noqa: ASYNC110 - a file wakes nobody
        await asyncio.sleep(0.02)


async def test_writes_are_flushed_after_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawlscope.indexing.index.edge.FLUSH_AFTER_SECONDS", 0.05)
    index = EdgeIndex.open(folder, DIMENSION)
    before = flushed_bytes(folder)
    await index.replace([make_document("https://h/", "apple")])
    await asyncio.wait_for(grown(folder, before), 60)
    await index.aclose()


async def test_only_the_log_is_flushed_while_chunks_come(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[str]()

    def note(path: Path) -> None:
        sync(path)
        synced.append(path.name)

    monkeypatch.setattr(edge, "FLUSH_AFTER_SECONDS", 0.3)
    monkeypatch.setattr(edge, "sync", note)
    index = EdgeIndex.open(folder, DIMENSION)
    before = flushed_bytes(folder)
    async with asyncio.timeout(60):
        while not synced:
            await index.replace([make_document("https://h/", "apple")])
            await asyncio.sleep(0.01)
        assert (synced, flushed_bytes(folder)) == (["wal"], before)
        await grown(folder, before)
    await index.aclose()


def indexes_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_dropped_index_leaves_nothing(tmp_path: Path) -> None:
    indexes = EdgeIndexes(tmp_path)
    await (await indexes.open("index", DIMENSION)).replace(
        [make_document("https://a.example/", "one", "two")]
    )
    await indexes.aclose()
    for goal in Goal:  # as after a kill
        optimizing.copy_of(tmp_path / "index", goal).mkdir()
        optimizing.finished(tmp_path / "index", goal).mkdir()
    again = EdgeIndexes(tmp_path)
    await again.drop("index")
    assert not indexes_in(tmp_path)
    await again.make("index", DIMENSION)
    assert (await (await again.open("index", DIMENSION)).size()).chunks == 0
    await again.aclose()


async def test_an_index_that_is_opened_while_it_is_made_keeps_its_files(tmp_path: Path) -> None:
    """A worker's probe opens an index that the API process makes at that moment."""
    indexes = EdgeIndexes(tmp_path)
    for _ in range(3):
        await asyncio.gather(indexes.make("index", DIMENSION), indexes.open("index", DIMENSION))
        index = await indexes.open("index", DIMENSION)
        await index.replace([make_document("https://h/", "apple")])
        await indexes.aclose()
        index = await indexes.open("index", DIMENSION)
        assert (await index.size()).chunks == 1
    await indexes.aclose()


async def test_an_open_index_is_used_while_another_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes, released = EdgeIndexes(tmp_path), threading.Event()
    opened = await indexes.open("index", DIMENSION)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: released.wait(60))
    dropping = asyncio.create_task(indexes.drop("index-2"))
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(10):
            assert await indexes.open("index", DIMENSION) is opened
    finally:
        released.set()
    await dropping
    await indexes.aclose()
