"""An index in several shards scores as one index does."""

import asyncio
from pathlib import Path

import pytest

from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import Filters, IndexedDocument, SearchIndex
from crawlscope.indexing.index.sharded import ShardedIndex, ShardedIndexes
from crawlscope.indexing.sparse import Bm25Encoder
from tests.indexing.index.chunks import DIMENSION, make_document

QUERY = Bm25Encoder().encode_query("quokka apple")


async def scores(index: SearchIndex) -> dict[bytes, float]:
    return {hit.id: hit.score for hit in (await index.query(None, QUERY, Filters(), 100)).bm25}


async def test_a_rare_word_counts_in_each_shard_as_in_the_whole_index(tmp_path: Path) -> None:
    """Quokkas are in few chunks, not equally many of each shard."""
    indexes = [ShardedIndexes([EdgeIndexes(tmp_path / f"{n}-{k}") for k in range(n)]) for n in (1, 3)]
    one, several = [await each.open("index", DIMENSION) for each in indexes]
    assert isinstance(several, ShardedIndex)
    for index in one, several:
        await index.replace(
            [
                make_document(
                    f"https://h/{number}", "a quokka" if number < 7 else f"an apple {'tree ' * number}"
                )
                for number in range(60)
            ]
        )
    whole = await scores(one)
    assert len(whole) == 60
    assert await scores(several) == pytest.approx(whole, rel=1e-4)
    # Deleted chunks may count in the shard that had them.
    await several.replace([IndexedDocument(f"https://h/{number}") for number in range(10, 60, 2)])
    several._next_count = 0.0
    quokkas = [score for one, score in (await scores(several)).items() if whole[one] == max(whole.values())]
    assert len(quokkas) == 7
    assert quokkas == pytest.approx([quokkas[0]] * 7, rel=1e-4)
    for each in indexes:
        await each.aclose()


async def test_a_query_goes_on_while_another_one_makes_the_factors_old(tmp_path: Path) -> None:
    indexes = ShardedIndexes([EdgeIndexes(tmp_path / f"{number}") for number in range(2)])
    index = await indexes.open("index", DIMENSION)
    assert isinstance(index, ShardedIndex)
    await index.replace(
        [make_document(f"https://h/{number}", "an apple and a quokka") for number in range(9)]
    )
    await index.query(None, Bm25Encoder().encode_query("apple"), Filters(), 100)

    async def at_the_end_of_the_minute() -> dict[bytes, float]:
        index._next_count = 0.0
        return await scores(index)

    first, second = await asyncio.gather(scores(index), at_the_end_of_the_minute())
    assert first == pytest.approx(second)
    assert len(first) == 9
    await indexes.aclose()
