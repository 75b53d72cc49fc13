"""An embedded index is optimised while it is written and searched. A kill at any moment loses nothing."""

import asyncio
import shutil
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from crawlscope.core.errors import IndexUnavailable, IndexUnusable
from crawlscope.indexing.index import edge, optimizing
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.optimizing import Goal, Segment
from crawlscope.indexing.index.port import ChunkId, Filters, IndexedDocument, chunk_id
from tests.indexing.index.chunks import BM25, DIMENSION, direction, make_document

WORDS = ("apple", "pear", "quince", "plum")
CRAWLS = ("crawl-1", "crawl-2")
ALL = 10_000


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of chunks is enough to optimise, and none come too fast."""
    monkeypatch.setattr(optimizing, "MIN_TO_FREEZE", 1)
    monkeypatch.setattr(optimizing, "MIN_TO_LINK", 1)
    monkeypatch.setattr(edge, "MAX_CHUNKS_PER_SECOND", float("inf"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


def documents(*words: str) -> list[IndexedDocument]:
    return [make_document(f"https://h/{n}", f"{words[0]} number{n}", *words[1:]) for n in range(60)]


async def opened_with(folder: Path, *words: str) -> EdgeIndex:
    index = EdgeIndex.open(folder, DIMENSION)
    await index.replace(documents(*words))
    await index.aclose()  # what is not flushed is not counted
    return EdgeIndex.open(folder, DIMENSION)


async def found(index: EdgeIndex, words: str) -> int:
    return len((await index.query(None, BM25.encode_query(words), Filters(), ALL)).bm25)


def segments(folder: Path) -> list[Segment]:
    return sorted(map(Segment.of, (folder / "segments").iterdir()), key=attrgetter("grows"))


async def begun(index: EdgeIndex, goal: Goal) -> asyncio.Task[None]:
    working = asyncio.create_task(index.optimize(goal))
    while not optimizing.copy_of(index.path, goal).exists():
        assert not working.done()
        await asyncio.sleep(0.01)
    return working


async def set_crawl(index: EdgeIndex, crawl: str) -> int:
    await index.set_crawl_ids({f"https://h/{n}": [crawl] for n in range(50)})
    return len((await index.query(direction(0), None, Filters(crawl_id=crawl), ALL)).dense)


async def test_segments_are_frozen_and_then_linked_while_they_change(folder: Path) -> None:
    index = await opened_with(folder, "apple", "pear")
    with capture_logs() as lines:
        for goal in Goal:
            working = await begun(index, goal)
            assert await set_crawl(index, "meanwhile") == 100
            await index.replace(documents("quince", "plum")[:20])
            await working
            assert [await found(index, word) for word in ("apple", "plum", "quince")] == [40, 20, 20]
            assert (await set_crawl(index, "later"), (await index.size()).chunks) == (100, 120)
            await index.replace(documents("apple", "pear")[:20])
    await index.optimize(Goal.LINKED)  # nothing is due
    await index.aclose()
    assert [(line["event"], line["goal"]) for line in lines] == [
        ("index_optimized", "frozen"),
        ("index_optimized", "linked"),
    ]
    assert [each.chunks for each in segments(folder) if each.is_linked] == [20]
    index = EdgeIndex.open(folder, DIMENSION)
    assert [await found(index, word) for word in ("apple", "pear")] == [60, 60]
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
    await index.aclose()


@pytest.mark.parametrize("most", [1, 1_000])
async def test_while_chunks_come_fast_only_many_are_frozen_and_none_linked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(edge, "MAX_CHUNKS_PER_SECOND", 0.0)
    monkeypatch.setattr(optimizing, "MIN_TO_FREEZE_IN_HASTE", most)
    index = await opened_with(folder, "apple", "pear")
    await index.replace(documents("quince")[:1])
    for goal in Goal:
        await index.optimize(goal)
    in_haste = [each.is_linked for each in segments(folder) if not each.grows]
    for goal in Goal:
        await index.optimize(goal)
    assert [each.is_linked for each in segments(folder) if not each.grows] == in_haste, "it lasts"
    monkeypatch.setattr(index, "_in_haste_until", 0.0)
    for goal in Goal:
        await index.optimize(goal)
    await index.aclose()
    assert in_haste == ([False] if most == 1 else [])
    assert [each.is_linked for each in segments(folder) if not each.grows] == [True]


async def test_small_segments_are_merged_also_without_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "MAX_SMALL_SEGMENTS", 1)
    index = EdgeIndex.open(folder, DIMENSION)
    for word in "apple", "pear":
        await index.aclose()
        index = await opened_with(folder, word)
        await index.optimize(Goal.FROZEN)
    assert [(each.rows, each.is_linked) for each in segments(folder)] == [(60, False), (0, False)]
    assert [await found(index, word) for word in ("apple", "pear")] == [0, 60]
    await index.aclose()


class Author:
    """Changes an index at random, and knows what it holds."""

    def __init__(self, index: EdgeIndex, seed: int) -> None:
        self.index = index
        self._random = Random(seed)
        self._texts: dict[str, list[str]] = {}
        self._crawls: dict[str, str] = {}

    async def change(self) -> None:
        random = self._random
        url, crawl = f"https://h/{random.randrange(200)}", random.choice(CRAWLS)
        match random.choice(("replace", "replace", "delete", "set_crawl_ids")):
            case "replace":
                texts = [f"{random.choice(WORDS)} {n}" for n in range(random.choice((1, 3, 16, 40)))]
                self._texts[url], self._crawls[url] = texts, crawl
                await self.index.replace([make_document(url, *texts, crawl_ids=(crawl,))])
            case "delete":
                self._texts.pop(url, None)
                await self.index.replace([IndexedDocument(url)])
            case _:
                urls = random.sample([f"https://h/{n}" for n in range(200)], 20)
                self._crawls |= dict.fromkeys(urls, crawl)
                await self.index.set_crawl_ids({each: [crawl] for each in urls})

    def _ids(self, word: str = "", crawl: str = "") -> list[ChunkId]:
        return sorted(
            chunk_id(url, number)
            for url, texts in self._texts.items()
            for number, text in enumerate(texts)
            if word in text and crawl in self._crawls[url]
        )

    async def check(self) -> None:
        assert (await self.index.size()).chunks == len(self._ids())
        for word in WORDS:
            halves = await self.index.query(None, BM25.encode_query(word), Filters(), ALL)
            assert sorted(hit.id for hit in halves.bm25) == self._ids(word=word)
        for crawl in CRAWLS:
            halves = await self.index.query(direction(0), None, Filters(crawl_id=crawl), ALL)
            assert sorted(hit.id for hit in halves.dense) == self._ids(crawl=crawl)
        payloads = await self.index.payloads(self._ids())
        for url, texts in self._texts.items():
            stored = [payloads[chunk_id(url, number)] for number in range(len(texts))]
            assert [(each["url"], each["text"]) for each in stored] == [(url, text) for text in texts]


async def test_searches_and_writes_go_on(folder: Path) -> None:
    author = Author(EdgeIndex.open(folder, DIMENSION), seed=8)
    for goals in [Goal.FROZEN], [Goal.FROZEN, Goal.LINKED]:
        for _ in range(40):
            await author.change()
        await author.index.aclose()
        author.index = EdgeIndex.open(folder, DIMENSION)
        working = [asyncio.create_task(author.index.optimize(goal)) for goal in goals]
        while not all(each.done() for each in working):
            await author.change()
            await asyncio.sleep(0.1)
        await asyncio.gather(*working)
        await author.check()
        for _ in range(40):  # of chunks that were written meanwhile, too
            await author.change()
        await author.check()
    await author.index.aclose()
    author.index = EdgeIndex.open(folder, DIMENSION)
    await author.check()
    await author.index.aclose()


@pytest.mark.parametrize("command", ["false", "true"])
async def test_a_failed_optimization_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(optimizing, "COMMAND", tuple(command.split()))
    index = await opened_with(folder, "apple")
    with pytest.raises((IndexUnusable, IndexUnavailable)):
        await index.optimize(Goal.FROZEN)
    await index.optimize(Goal.FROZEN)  # is not tried again at once
    assert await found(index, "apple") == 60
    await index.replace(documents("quince"))
    await index.aclose()
    index = EdgeIndex.open(folder, DIMENSION)
    assert await found(index, "quince") == 60
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
    await index.aclose()


async def test_a_closed_index_stops_its_optimization(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizing, "COMMAND", ("sleep", "600"))
    index = await opened_with(folder, "apple")
    working = await begun(index, Goal.FROZEN)
    await index.aclose()
    await asyncio.wait_for(working, 60)
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


class Killed(BaseException):
    """Ends a process at once."""


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """After how many renames the process is killed; empty: never."""
    left, rename = list[int](), Path.rename

    def rename_or_die(path: Path, to: Path) -> Path:
        if left:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", rename_or_die)
    yield left
    left.clear()


async def test_a_copy_takes_no_more_space(folder: Path) -> None:
    index = await opened_with(folder, "apple")
    await index.aclose()
    copy = await asyncio.to_thread(optimizing.make_copy, folder, Goal.FROZEN, segments(folder))
    assert optimizing.bytes_on_disk(copy) < 1.1 * optimizing.bytes_on_disk(folder)
    assert all(file.read_bytes() == (copy / file.relative_to(folder)).read_bytes() for file in files(folder))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_kill_at_any_rename_loses_nothing(folder: Path, kills: list[int]) -> None:
    index = await opened_with(folder, "apple", "pear")
    kills[:] = [1]  # the copy is finished, and no segment moved
    working = await begun(index, Goal.FROZEN)
    await index.replace(documents("quince")[:20])
    with pytest.raises(Killed):
        await working
    kills.clear()
    with pytest.raises(IndexUnavailable):
        await index.size()
    left = folder.parent.with_name("left")
    await asyncio.to_thread(shutil.copytree, folder.parent, left)
    for renames in range(4):
        await asyncio.to_thread(shutil.rmtree, folder.parent)
        await asyncio.to_thread(shutil.copytree, left, folder.parent)
        kills[:] = [renames]
        with pytest.raises(Killed):
            EdgeIndex.open(folder, DIMENSION)
        kills.clear()
        index = EdgeIndex.open(folder, DIMENSION)
        assert [await found(index, word) for word in ("apple", "pear", "quince")] == [40, 40, 20]
        assert [each.rows for each in segments(folder)] == [120, 20]
        assert [path.name for path in folder.parent.iterdir()] == ["index"]
        await index.aclose()


async def test_a_kill_before_the_copy_is_finished_leaves_the_former_segments(folder: Path) -> None:
    index = await opened_with(folder, "apple")
    await index.aclose()
    copy = await asyncio.to_thread(optimizing.make_copy, folder, Goal.FROZEN, segments(folder))
    await asyncio.to_thread(shutil.rmtree, copy / "segments")
    index = EdgeIndex.open(folder, DIMENSION)
    assert await found(index, "apple") == 60
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
    await index.aclose()
