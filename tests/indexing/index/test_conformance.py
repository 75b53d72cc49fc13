"""The contract of every search index, with any engine.

Qdrant's in-memory mode stands in for a server: it computes the same scores, IDF included. It has no
payload indexes (filters walk all points), is not durable, refuses no second owner and has no
connection that could break: those are tested where they exist.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from crawlscope.core.errors import IndexUnusable
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import (
    Filters,
    IndexedDocument,
    SearchIndex,
    SparseVector,
    chunk_id,
    document_key,
)
from crawlscope.indexing.index.qdrant_server import QdrantIndexes
from crawlscope.indexing.index.sharded import ShardedIndexes
from crawlscope.indexing.index.socket_client import RemoteIndexes
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.phrase import Phrase
from crawlscope.processes.index_process import embedded_indexes
from tests.indexing.index.chunks import BM25, DIMENSION, direction, found_urls, make_document, urls
from tests.support.fakes.qdrant_server import FakeQdrant

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYTHING = Filters()


@asynccontextmanager
async def open_edge(folder: Path) -> AsyncIterator[SearchIndex]:
    index = EdgeIndex.open(folder / "index", DIMENSION)
    yield index
    await index.aclose()


@asynccontextmanager
async def open_remote(folder: Path) -> AsyncIterator[SearchIndex]:
    async with embedded_indexes(folder):
        remote = RemoteIndexes(socket_path_for(folder))
        await remote.make("index", DIMENSION)
        yield await remote.open("index", DIMENSION)
        await remote.aclose()


@asynccontextmanager
async def open_sharded(folder: Path) -> AsyncIterator[SearchIndex]:
    shards = ShardedIndexes([EdgeIndexes(folder / name) for name in ("one", "other")])
    yield await shards.open("index", DIMENSION)
    await shards.aclose()


@asynccontextmanager
async def open_qdrant(folder: Path) -> AsyncIterator[SearchIndex]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect in the local Qdrant")
        indexes = QdrantIndexes(AsyncQdrantClient(":memory:"))
        await indexes.make("index", DIMENSION)
        yield await indexes.open("index", DIMENSION)
        await indexes.aclose()


@asynccontextmanager
async def open_qdrant_server(folder: Path) -> AsyncIterator[SearchIndex]:
    with FakeQdrant() as server:
        indexes = QdrantIndexes(AsyncQdrantClient(url=server.url))
        await indexes.make("index", DIMENSION)
        yield await indexes.open("index", DIMENSION)
        await indexes.aclose()


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[open_edge, open_remote, open_sharded, open_qdrant, open_qdrant_server],
    ids=["edge", "remote", "sharded", "qdrant", "qdrant-http"],
)
async def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SearchIndex]:
    """One for all tests, because making an index takes longer than any test."""
    async with request.param(tmp_path_factory.mktemp("conformance")) as index:
        yield index


@pytest_asyncio.fixture(loop_scope="module")
async def index(opened: SearchIndex) -> SearchIndex:
    while hits := (await opened.query(direction(0), None, EVERYTHING, 1_000)).dense:
        await opened.replace([IndexedDocument(url) for url in set(urls(hits))])
    return opened


async def search_words(index: SearchIndex, words: str, filters: Filters = EVERYTHING) -> list[str]:
    return urls((await index.query(None, BM25.encode_query(words), filters, 100)).bm25)


async def test_an_empty_index_finds_nothing(index: SearchIndex) -> None:
    assert (await index.size()).chunks == 0
    halves = await index.query(direction(0), BM25.encode_query("anything"), EVERYTHING, 10)
    assert (halves.dense, halves.bm25) == ([], [])


async def test_both_halves_answer_best_first(index: SearchIndex) -> None:
    await index.replace(
        [
            make_document("https://h/far", "a pear", dense=direction(2)),
            make_document("https://h/near", "an apple and an apple tree", dense=direction(0)),
            make_document("https://h/between", "an apple", dense=direction(0, lean=1.0)),
        ]
    )
    halves = await index.query(direction(0), BM25.encode_query("apple tree"), EVERYTHING, 10)
    assert urls(halves.dense) == ["https://h/near", "https://h/between", "https://h/far"]
    assert urls(halves.bm25) == ["https://h/near", "https://h/between"]
    assert halves.dense[0].score == pytest.approx(1.0, abs=1e-5)
    assert halves.bm25[0].score > halves.bm25[1].score > 0


async def test_a_hit_carries_the_whole_chunk(index: SearchIndex) -> None:
    url, texts = "https://h/ü?q=1", ("one", "Žluťoučký kůň 🐎")
    await index.replace([make_document(url, *texts, crawl_ids=("a", "b"), language="cs")])
    (hit,) = (await index.query(None, BM25.encode_query("kůň"), EVERYTHING, 10)).bm25
    assert hit == (chunk_id(url, 1), hit.score, document_key(url))
    assert (await index.payloads([hit.id, chunk_id(url, 2)]))[hit.id] == {
        "url": url,
        "title": f"Title of {url}",
        "text": "Žluťoučký kůň 🐎",
        "chunk_index": 1,
        "domain": "h",
        "url_prefixes": ["https://h/"],
        "language": "cs",
        "crawl_ids": ["a", "b"],
    }


async def test_chunks_are_compared_with_a_phrase(index: SearchIndex) -> None:
    url, phrase = "https://h/tree", Phrase.of("Apple tree")
    await index.replace(
        [make_document(url, "an *apple*\ntree", "no apple trees", "tree, apple", "apple tree")]
    )
    ids = [chunk_id(url, number) for number in range(6)]
    assert await index.containing(phrase, ids[1:], ["text"]) == {ids[3]}
    assert await index.containing(phrase, ids, ["text"]) == {ids[0], ids[3]}
    assert await index.containing(Phrase.of("title of"), ids, ["text"]) == set()
    assert await index.containing(Phrase.of("title of"), ids, ["text", "title"]) == {*ids[:4]}


async def test_chunks_are_read_with_their_vectors(index: SearchIndex) -> None:
    url = "https://h/"
    await index.replace([make_document(url, "one", "two", dense=[3 * each for each in direction(1)])])
    ids = [chunk_id(url, number) for number in range(3)]
    stored = await index.stored(ids)
    assert [stored[one].text for one in ids[:2]] == ["one", "two"]
    assert stored.keys() == {*ids[:2]}
    for chunk in stored.values():
        assert chunk.dense == pytest.approx(direction(1), abs=1e-6)  # of length 1
        assert chunk.parts == ""


async def test_the_parts_of_a_chunk_are_stored(index: SearchIndex) -> None:
    url = "https://h/"
    await index.replace([replace(make_document(url, "one", "two"), parts=["first", "second"])])
    ids = [chunk_id(url, number) for number in range(2)]
    stored, payloads = await index.stored(ids), await index.payloads(ids)
    assert [stored[one].parts for one in ids] == ["first", "second"]
    assert [payloads[one].get("parts") for one in ids] == ["first", "second"]


async def test_a_rare_term_counts_more(index: SearchIndex) -> None:
    texts = {f"https://h/{number}": "apple tree" if number % 4 == 0 else "apple" for number in range(20)}
    await index.replace([make_document(url, text) for url, text in texts.items()])
    apple, tree, pear = (int(BM25.encode_query(word).indices[0]) for word in ("apple", "tree", "pear"))
    chunks, idf = await index.rarities([tree, pear, apple])
    assert chunks == 20
    assert idf.keys() == {tree, apple}
    assert idf[tree] > idf[apple] > 0
    assert await index.rarities([]) == (20, {})


async def test_only_the_queried_half_has_hits(index: SearchIndex) -> None:
    await index.replace([make_document("https://h/", "apple")])
    words = BM25.encode_query("apple")
    assert (await index.query(None, words, EVERYTHING, 10)).dense == []
    assert (await index.query(direction(0), None, EVERYTHING, 10)).bm25 == []
    nothing = await index.query(None, BM25.encode_query("the"), EVERYTHING, 10)
    assert (nothing.dense, nothing.bm25) == ([], [])


async def test_queries_at_once_find_what_each_finds_alone(index: SearchIndex) -> None:
    words = ("apple", "pear", "apple pear", "the")
    await index.replace(
        [make_document(f"https://h/{n}", words[n % 3], dense=direction(n, lean=n / 9)) for n in range(9)]
    )
    asked = [
        (direction(n) if n % 3 else None, BM25.encode_query(words[n % 4]) if n % 4 else None, filters, 3 + n)
        for n in range(6)
        for filters in (EVERYTHING, Filters(url_prefix="https://h/1"))
    ]
    alone = [await index.query(*each) for each in asked]
    assert await asyncio.gather(*(index.query(*each) for each in asked)) == alone


async def test_limit_holds_for_each_half(index: SearchIndex) -> None:
    await index.replace([make_document(f"https://h/{n}", "apple") for n in range(8)])
    halves = await index.query(direction(0), BM25.encode_query("apple"), EVERYTHING, 5)
    assert (len(halves.dense), len(halves.bm25)) == (5, 5)


async def test_a_rare_word_counts_more_than_a_common_one(index: SearchIndex) -> None:
    common = [make_document(f"https://h/{n}", "apple orchard") for n in range(20)]
    await index.replace([*common, make_document("https://h/rare", "quince orchard")])
    assert (await search_words(index, "apple quince"))[0] == "https://h/rare"


async def test_a_document_replaces_the_former_one(index: SearchIndex) -> None:
    await index.replace([make_document("https://h/", "apple")])
    await index.replace([make_document("https://h/", "quince")])
    assert (await index.size()).chunks == 1
    assert await search_words(index, "apple") == []
    assert await search_words(index, "quince") == ["https://h/"]


async def test_crawl_ids_change_and_the_rest_stays(index: SearchIndex) -> None:
    await index.replace(
        [
            make_document(f"https://h/{name}", "apple", "apple pie", crawl_ids=("old",))
            for name in ("", "other", "third")
        ]
    )
    pie, other = BM25.encode_query("pie"), Filters(url_prefix="https://h/other")
    (hit,) = (await index.query(None, pie, other, 10)).bm25
    before = (await index.payloads([hit.id]))[hit.id]
    await index.set_crawl_ids(
        {"https://h/": ["old", "new"], "https://h/other": ["old", "newer"], "https://h/unknown": ["new"]}
    )
    assert await search_words(index, "apple", Filters(crawl_id="new")) == ["https://h/"] * 2
    assert len(await search_words(index, "apple", Filters(crawl_id="old"))) == 6
    (hit,) = (await index.query(None, pie, Filters(crawl_id="newer"), 10)).bm25
    assert await index.payloads([hit.id]) == {hit.id: {**before, "crawl_ids": ["old", "newer"]}}
    assert (await index.size()).chunks == 6


SITE = {
    "https://docs.example/": ("en", "c1"),
    "https://docs.example/library/asyncio.html": ("en", "c1"),
    "https://docs.example/library/asyncio-task.html#x": ("en", "c2"),
    "https://docs.example/libraries": ("de", "c2"),
    "https://docs.example/library/a/b?next=/c/d": ("de", "c1"),
    "https://docs.example.org/library/asyncio.html": ("en", "c2"),
    "http://docs.example/library/": ("en", "c2"),
    "https://bare.example": ("en", "c1"),
}


@pytest_asyncio.fixture(loop_scope="module")
async def site(index: SearchIndex) -> SearchIndex:
    await index.replace(
        [
            make_document(url, "apple", language=language, crawl_ids=(crawl,))
            for url, (language, crawl) in SITE.items()
        ]
    )
    return index


@pytest.mark.parametrize(
    "prefix",
    [
        "https://",
        "https://docs.example",
        "https://docs.example/",
        "https://docs.example/lib",
        "https://docs.example/library",
        "https://docs.example/library/",
        "https://docs.example/library/asyncio",
        "https://docs.example/library/asyncio.html",
        "https://docs.example/library/a/b?next=/c/",
        "https://bare.example",
        "https://elsewhere.example/",
    ],
)
async def test_url_prefix_matches_the_beginning_of_the_url(site: SearchIndex, prefix: str) -> None:
    expected = {url for url in SITE if url.startswith(prefix)}
    halves = await site.query(direction(0), BM25.encode_query("apple"), Filters(url_prefix=prefix), 100)
    assert set(urls(halves.dense)) == set(urls(halves.bm25)) == expected


async def test_a_host_without_path_matches_its_root(site: SearchIndex) -> None:
    under_root = Filters(url_prefix="https://bare.example/")
    assert await search_words(site, "apple", under_root) == ["https://bare.example"]


async def test_a_prefix_with_more_segments_than_are_indexed_matches(index: SearchIndex) -> None:
    deep = "https://h/" + "/".join(f"level{n}" for n in range(40))
    await index.replace([make_document(f"{deep}/a", "apple"), make_document(f"{deep}x/b", "apple")])
    assert await search_words(index, "apple", Filters(url_prefix=f"{deep}/")) == [f"{deep}/a"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(domain="docs.example.org"), ["https://docs.example.org/library/asyncio.html"]),
        (Filters(domain="Docs.Example.ORG"), ["https://docs.example.org/library/asyncio.html"]),
        (
            Filters(domain="https://docs.example.org:8443/library/"),
            ["https://docs.example.org/library/asyncio.html"],
        ),
        (Filters(domain="www.docs.example.org"), ["https://docs.example.org/library/asyncio.html"]),
        (Filters(domain="example.org"), []),
        (Filters(language="de", crawl_id="c2"), ["https://docs.example/libraries"]),
        (Filters(language="de-AT", crawl_id="c2"), ["https://docs.example/libraries"]),
        (Filters(language="DE", crawl_id="c2"), ["https://docs.example/libraries"]),
        (Filters(language="de_DE.UTF-8", crawl_id="c2"), ["https://docs.example/libraries"]),
        (
            Filters(domain="docs.example", language="en", url_prefix="https://docs.example/library/asyncio."),
            ["https://docs.example/library/asyncio.html"],
        ),
        (Filters(crawl_id="c"), []),
        (Filters(language="e"), []),
        (
            Filters(urls=["https://docs.example/libraries", "https://nowhere.example/"]),
            ["https://docs.example/libraries"],
        ),
        (Filters(urls=[]), []),
        (
            Filters(
                url_prefix="https://docs.example/library/asyncio.",
                other_than=["https://docs.example/library/asyncio.html"],
            ),
            [],
        ),
        (
            Filters(language="de", crawl_id="c2", other_than=["https://docs.example/library/asyncio.html"]),
            ["https://docs.example/libraries"],
        ),
    ],
)
async def test_all_filters_must_match(site: SearchIndex, filters: Filters, expected: list[str]) -> None:
    halves = await site.query(direction(0), BM25.encode_query("apple"), filters, 100)
    assert urls(halves.dense) == urls(halves.bm25) == expected


async def test_vectors_may_be_arrays(index: SearchIndex) -> None:
    plain = make_document("https://h/", "apple")
    sparse = SparseVector(
        np.array(plain.sparse[0].indices, dtype=np.uint32), np.array(plain.sparse[0].values, dtype=np.float32)
    )
    await index.replace([replace(plain, sparse=[sparse])])
    halves = await index.query(plain.dense[0], sparse, EVERYTHING, 10)
    assert urls(halves.dense) == urls(halves.bm25) == ["https://h/"]


async def test_a_chunk_without_words_is_found_by_meaning(index: SearchIndex) -> None:
    await index.replace([make_document("https://h/", "...")])
    assert found_urls(await index.query(direction(0), None, EVERYTHING, 10)) == {"https://h/"}


async def test_vectors_of_another_dimension_are_refused(index: SearchIndex) -> None:
    wrong = make_document("https://h/wrong", "apple", dense=[1.0, 0.0])
    with pytest.raises(IndexUnusable, match="4 dimensions and was handed one of 2"):
        await index.replace([make_document("https://h/", "apple"), wrong])
    assert (await index.size()).chunks == 0
    with pytest.raises(IndexUnusable, match="4 dimensions"):
        await index.query([1.0, 0.0], None, EVERYTHING, 10)


async def test_a_large_page_is_stored_completely(index: SearchIndex) -> None:
    await index.replace([make_document("https://h/", *[f"apple number{n}" for n in range(300)])])
    assert (await index.size()).chunks == 300
    assert await search_words(index, "number299") == ["https://h/"]
    await index.set_crawl_ids({"https://h/": ["later"]})
    assert len(await search_words(index, "apple", Filters(crawl_id="later"))) == 100
    await index.replace([IndexedDocument("https://h/")])
    assert (await index.size()).chunks == 0


async def test_a_shorter_document_leaves_no_chunks_of_the_former_one(index: SearchIndex) -> None:
    words = [f"word{n}" for n in range(5)]
    await index.replace(
        [make_document(url, *words) for url in ("https://h/", "https://h/longer", "https://h/gone")]
    )
    await index.replace([make_document("https://h/", *words[:2]), IndexedDocument("https://h/gone")])
    assert (await index.size()).chunks == 7
    assert sorted(await search_words(index, "word1")) == ["https://h/", "https://h/longer"]
    assert await search_words(index, "word2") == ["https://h/longer"]


async def test_of_two_documents_with_one_url_the_last_counts(index: SearchIndex) -> None:
    longer, shorter = make_document("https://h/", "apple", "pear"), make_document("https://h/", "quince")
    await index.replace([longer, make_document("https://h/other", "apple"), shorter])
    assert await search_words(index, "quince") == ["https://h/"]
    assert await search_words(index, "apple pear") == ["https://h/other"]


async def test_many_documents_are_replaced_in_one_call(index: SearchIndex) -> None:
    for length in (5, 3):
        documents = [
            make_document(f"https://h/{n}", *[f"word{n} part{part}" for part in range(length)])
            for n in range(150)
        ]
        await index.replace(documents)
        assert (await index.size()).chunks == 150 * length
    assert set(await search_words(index, "word149")) == {"https://h/149"}
    assert await search_words(index, "part4") == []


async def test_calls_without_effect_raise_nothing(index: SearchIndex) -> None:
    await index.replace([])
    await index.replace([IndexedDocument("https://nobody/")])
    await index.set_crawl_ids({})
    await index.set_crawl_ids({"https://nobody/": ["crawl"]})
    assert await index.payloads([]) == await index.payloads([chunk_id("https://nobody/", 0)]) == {}
    assert (await index.size()).chunks == 0


async def test_concurrent_calls_get_their_own_answers(index: SearchIndex) -> None:
    await asyncio.gather(*(index.replace([make_document(f"https://h/{n}", f"word{n}")]) for n in range(40)))
    found = await asyncio.gather(*(search_words(index, f"word{n}") for n in range(40)))
    assert found == [[f"https://h/{n}"] for n in range(40)]
