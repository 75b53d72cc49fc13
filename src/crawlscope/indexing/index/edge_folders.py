"""The embedded indexes of one data folder, each in a folder of its own."""

import asyncio
import shutil
from pathlib import Path
from typing import NoReturn

import structlog

from crawlscope.core.errors import IndexUnavailable, IndexUnusable
from crawlscope.indexing.index import optimizing
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.optimizing import Goal
from crawlscope.indexing.index.port import OwnedIndexes, SearchIndex

log = structlog.get_logger(__name__)


class EdgeIndexes(OwnedIndexes):
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._opened: dict[str, SearchIndex] = {}
        self._changing = asyncio.Lock()
        """A caller that opened an index while another makes it would lose its files."""

    async def open(self, name: str, dimension: int) -> SearchIndex:
        """Makes an empty one if it is missing. Raises `IndexUnavailable` if another process has it open."""
        if index := self._opened.get(name):  # its callers do not wait while another one is dropped
            return index
        async with self._changing:
            return await self._open(name, dimension)

    async def make(self, name: str, dimension: int) -> None:
        async with self._changing:
            await self._drop(name)
            await self._open(name, dimension)

    async def drop(self, name: str) -> None:
        async with self._changing:
            await self._drop(name)

    async def _open(self, name: str, dimension: int) -> SearchIndex:
        if name not in self._opened:
            try:
                index: SearchIndex = await asyncio.to_thread(EdgeIndex.open, self._data_dir / name, dimension)
                log.info("index_opened", index=name)
            except IndexUnusable as damage:
                log.warning("index_damaged", reason=str(damage))
                index = UnusableIndex(str(damage))
            self._opened[name] = index
        return self._opened[name]

    async def _drop(self, name: str) -> None:
        if index := self._opened.pop(name, None):
            await index.aclose()
        path = self._data_dir / name
        await asyncio.to_thread(optimizing.clean_up, path)  # first, or `install` would bring it back
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def optimize(self, goal: Goal) -> None:
        for index in list(self._opened.values()):
            if isinstance(index, EdgeIndex):
                await index.optimize(goal)

    async def aclose(self) -> None:
        for index in self._opened.values():
            await index.aclose()
        self._opened.clear()


class UnusableIndex(SearchIndex):
    """Stands for a damaged index, so that pages wait until another index replaces it.

    Every call raises `IndexUnavailable` with the reason.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise IndexUnavailable(self._reason)

    replace = set_crawl_ids = query = payloads = containing = stored = rarities = size = _refuse

    async def aclose(self) -> None:
        """Nothing is open."""
