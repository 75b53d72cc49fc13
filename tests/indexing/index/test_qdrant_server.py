"""Failures that only a server has; the rest is in the conformance suite."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from qdrant_client import AsyncQdrantClient

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index.fields import KEYWORD_FIELDS
from crawlscope.indexing.index.port import Filters
from crawlscope.indexing.index.qdrant_server import QdrantIndexes, QdrantServerIndex
from tests.indexing.index.chunks import BM25, DIMENSION, direction, make_document, urls

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


@asynccontextmanager
async def answering(
    status: str, body: object, asked: list[tuple[str, dict[str, object]]] | None = None
) -> AsyncIterator[QdrantServerIndex]:
    """An index whose server answers all requests like this, and records the requests.

    To one whose questions are noted it answers that all is done.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        sent = await reader.readexactly(int(length[1])) if length else b"{}"
        if asked is not None:
            asked.append((" ".join(head.split(" ")[:2]).partition("?")[0], json.loads(sent)))
        changed: object = {"operation_id": 1, "status": "completed"} if "/index" in head else True
        answered = body if asked is None else {"result": changed, "status": "ok", "time": 0.0}
        content = json.dumps(answered).encode()
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = AsyncQdrantClient(url=f"http://127.0.0.1:{port}", timeout=5, check_compatibility=False)
        yield QdrantServerIndex(client, DIMENSION)
        await client.close()


async def test_a_server_that_is_unavailable() -> None:
    async with answering("200 OK", {}) as index:
        pass
    with pytest.raises(IndexUnavailable, match="Qdrant does not answer"):
        await index.replace([make_document("https://h/", "apple")])
    with pytest.raises(IndexUnavailable, match="Qdrant does not answer"):
        await index.query(direction(0), None, Filters(), 10)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        ("401 Unauthorized", SettingsError, "CRAWLSCOPE_QDRANT_API_KEY"),
        ("403 Forbidden", SettingsError, "CRAWLSCOPE_QDRANT_API_KEY"),
        ("500 Internal Server Error", IndexUnavailable, "refused a request: Unexpected Response: 500"),
        ("503 Service Unavailable", IndexUnavailable, "503"),
        ("404 Not Found", IndexUnavailable, "crawlscope is gone: run `crawlscope reindex`"),
        ("200 OK", IndexUnavailable, "does not answer"),
    ],
)
async def test_each_refusal_has_its_own_error(status: str, error: type[CrawlscopeError], says: str) -> None:
    async with answering(status, {"status": {"error": "no"}}) as index:
        with pytest.raises(error, match=says) as caught:
            await index.size()
    assert "\n" not in str(caught.value)


@asynccontextmanager
async def in_memory() -> AsyncIterator[tuple[AsyncQdrantClient, QdrantIndexes]]:
    client = AsyncQdrantClient(":memory:")
    yield client, QdrantIndexes(client)
    await client.close()


async def test_a_collection_of_another_dimension_is_refused() -> None:
    async with in_memory() as (client, indexes):
        await indexes.make("index", DIMENSION)
        with pytest.raises(IndexUnusable, match="crawlscope was not made for vectors of 7 dimensions"):
            await QdrantServerIndex(client, 7).size()
        await indexes.make("index-2", 7)
        assert (await (await indexes.open("index-2", 7)).size()).chunks == 0
        assert (await (await indexes.open("index", DIMENSION)).size()).chunks == 0


async def test_several_processes_share_one_collection() -> None:
    async with in_memory() as (client, indexes):
        await indexes.make("index", DIMENSION)
        one, other = (QdrantServerIndex(client, DIMENSION) for _ in range(2))
        await one.replace([make_document("https://h/", "apple")])
        found = await other.query(None, BM25.encode_query("apple"), Filters(), 10)
        assert urls(found.bm25) == ["https://h/"]


async def test_a_missing_collection_is_not_made_again() -> None:
    async with in_memory() as (client, indexes):
        await indexes.make("index", DIMENSION)
        await indexes.drop("index")
        for call in (
            (await indexes.open("index", DIMENSION)).size,
            lambda: QdrantServerIndex(client, DIMENSION).replace([make_document("https://h/", "apple")]),
        ):
            with pytest.raises(IndexUnavailable, match="crawlscope is gone: run `crawlscope reindex`"):
                await call()
        assert not await client.collection_exists("crawlscope")


async def test_a_collection_has_what_filters_and_memory_need() -> None:
    """With a fake server, because the in-memory mode ignores indexes and quantization."""
    asked: list[tuple[str, dict[str, object]]] = []
    async with answering("200 OK", None, asked) as index:
        await index.make()
    [made] = [body for path, body in asked if path == "PUT /collections/crawlscope"]
    assert made["vectors"] == {"dense": {"size": DIMENSION, "distance": "Cosine", "on_disk": True}}
    assert made["sparse_vectors"] == {"bm25": {"modifier": "idf"}}
    assert made["quantization_config"] == {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}
    assert made["on_disk_payload"] is True
    indexed = {body["field_name"]: body["field_schema"] for path, body in asked if "/index" in path}
    assert indexed == {
        **dict.fromkeys(KEYWORD_FIELDS, "keyword"),
        "url": {"type": "keyword", "prefix": True},
    }
