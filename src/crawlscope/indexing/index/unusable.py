"""Stands for an index that is damaged, until another takes its place."""

# ruff: noqa: ARG002 - it looks at nothing that it is given

from collections.abc import Sequence
from typing import NoReturn
from uuid import UUID

from crawlscope.core.errors import IndexUnavailable
from crawlscope.indexing.index.port import (
    Filters,
    Floats,
    Halves,
    IndexedChunk,
    IndexSize,
    SearchIndex,
    SparseVector,
)


class UnusableIndex(SearchIndex):
    """Every call raises `IndexUnavailable` with the reason: pages wait for the index that takes its place."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        self._refuse()

    async def cut(self, url: str, keep: int) -> None:
        self._refuse()

    async def set_crawl_ids(self, ids: Sequence[UUID], crawl_ids: Sequence[str]) -> None:
        self._refuse()

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        self._refuse()

    async def size(self) -> IndexSize:
        self._refuse()

    async def aclose(self) -> None:
        """Nothing is open."""

    def _refuse(self) -> NoReturn:
        raise IndexUnavailable(self._reason)
