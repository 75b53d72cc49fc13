"""The process of the embedded index: one at a time, kept running, and nothing is lost when it is killed."""

import asyncio
from pathlib import Path

import psutil
import pytest

from crawlscope.core.data_dir import make_shards, shard_folders
from crawlscope.core.errors import IndexUnavailable, SettingsError
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.indexing.index.optimizing import MIN_TO_FREEZE
from crawlscope.indexing.index.port import Filters, IndexedDocument, SearchIndex
from crawlscope.indexing.index.socket_client import RemoteIndexes
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.processes.index_host import indexes_of
from crawlscope.processes.index_process import embedded_indexes, keep_index_process, run_index
from tests.indexing.index.chunks import BM25, DIMENSION, make_document, urls


async def size_once_it_answers(index: SearchIndex) -> int:
    async with asyncio.timeout(120):
        while True:
            try:
                return (await index.size()).chunks
            except IndexUnavailable:
                await asyncio.sleep(0.02)


def kept_children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.cmdline()[3:5] == ["crawlscope", "index"]]


async def test_a_killed_process_is_restarted_with_all_that_was_written(tmp_path: Path) -> None:
    remotes = RemoteIndexes(socket_path_for(tmp_path))
    index = await remotes.open("index", DIMENSION)
    async with in_background(keep_index_process(tmp_path)):
        assert await size_once_it_answers(index) == 0
        await index.replace([make_document(f"https://h/{n}", "apple", "pear") for n in range(100)])
        (child,) = kept_children()
        child.kill()
        with pytest.raises(IndexUnavailable):
            await index.size()
        assert await size_once_it_answers(index) == 200
    await remotes.aclose()
    assert kept_children() == []


@pytest.mark.slow
async def test_a_process_that_is_killed_while_it_optimises_loses_nothing(tmp_path: Path) -> None:
    remotes, copy = RemoteIndexes(socket_path_for(tmp_path)), tmp_path / "index.frozen"
    index, texts = await remotes.open("index", DIMENSION), ["apple"] * 100
    async with in_background(keep_index_process(tmp_path)), asyncio.timeout(300):
        assert await size_once_it_answers(index) == 0
        await index.replace([make_document(f"https://h/{n}", *texts) for n in range(MIN_TO_FREEZE // 100)])
        for kills, seconds in enumerate((0.0, 0.1, 0.3, 0.6, 1.0), start=1):
            while not copy.exists():  # noqa: ASYNC110 - a folder wakes nobody
                await asyncio.sleep(0.01)
            await index.replace([make_document(f"https://h/{kills}", "pear")])
            await asyncio.sleep(seconds)
            (child,) = kept_children()
            child.kill()
            child.wait()
            assert await size_once_it_answers(index) == MIN_TO_FREEZE - 99 * kills
            assert len((await index.query(None, BM25.encode_query("pear"), Filters(), 9)).bm25) == kills
            await index.replace([make_document(f"https://h/{n}", *texts) for n in range(1_000, 1_005)])
            await index.replace([IndexedDocument(f"https://h/{n}") for n in range(1_000, 1_005)])
    await remotes.aclose()


async def test_each_shard_has_a_process_of_its_own(tmp_path: Path) -> None:
    make_shards(tmp_path, 2)
    indexes = indexes_of(Settings(_env_file=None, data_dir=tmp_path))
    index = await indexes.open("index", DIMENSION)
    async with in_background(keep_index_process(tmp_path)):
        assert await size_once_it_answers(index) == 0
        await index.replace([make_document(f"https://h/{n}", "apple", "pear") for n in range(100)])
        one, other = kept_children()
        for shard in tmp_path, tmp_path / "shard-02":
            alone = RemoteIndexes(socket_path_for(shard))
            assert 20 < (await (await alone.open("index", DIMENSION)).size()).chunks < 180
            await alone.aclose()
        other.kill()
        with pytest.raises(IndexUnavailable):
            await index.require_writable()
        await size_once_it_answers(index)
        await index.require_writable()
        assert one.is_running()
        halves = await index.query(None, BM25.encode_query("pear"), Filters(), 150)
        assert len(set(urls(halves.bm25))) == 100
    await indexes.aclose()
    assert kept_children() == []


async def test_the_number_of_shards_is_that_of_the_first_start(tmp_path: Path) -> None:
    make_shards(tmp_path, 3)
    assert [each.name for each in shard_folders(tmp_path)[1:]] == ["shard-02", "shard-03"]
    make_shards(tmp_path, 4)
    assert len(shard_folders(tmp_path)) == 3
    (older := tmp_path / "older" / "index").mkdir(parents=True)
    make_shards(older.parent, 4)
    assert shard_folders(older.parent) == [older.parent]


async def test_a_second_process_takes_over_when_the_first_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = asyncio.Event()
    async with embedded_indexes(tmp_path):
        second = asyncio.create_task(run_index(Settings(_env_file=None, data_dir=tmp_path), stopping))
        await asyncio.sleep(0)  # it begins to wait
        monkeypatch.setattr("crawlscope.processes.index_process.TAKE_OVER_SECONDS", 0)
        with pytest.raises(IndexUnavailable, match="another process serves the index"):
            async with embedded_indexes(tmp_path):
                pass
        assert not second.done()
    remotes = RemoteIndexes(socket_path_for(tmp_path))
    index = await remotes.open("index", DIMENSION)
    assert await size_once_it_answers(index) == 0
    await remotes.aclose()
    stopping.set()
    await second
    assert not socket_path_for(tmp_path).exists()


async def test_a_qdrant_server_needs_no_process(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, qdrant_url="http://127.0.0.1:6333")
    with pytest.raises(SettingsError, match="CRAWLSCOPE_QDRANT_URL is set"):
        await run_index(settings, asyncio.Event())
