"""What only a server can do wrong; the rest is in the conformance suite."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from qdrant_client import AsyncQdrantClient

from crawlscope.errors import CrawlscopeError, IndexUnavailable, IndexUnusable, SettingsError
from crawlscope.indexing.index.port import Filters
from crawlscope.indexing.index.qdrant_server import QdrantServerIndex
from tests.indexing.index.chunks import BM25, DIMENSION, direction, make_chunk, urls

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


@asynccontextmanager
async def answering(status: str, body: object) -> AsyncIterator[QdrantServerIndex]:
    """An index whose server answers all requests like this."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        content = json.dumps(body).encode()
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


async def test_a_server_that_is_away() -> None:
    async with answering("200 OK", {}) as index:
        pass
    with pytest.raises(IndexUnavailable, match="Qdrant does not answer"):
        await index.upsert([make_chunk("https://h/", "apple")])
    with pytest.raises(IndexUnavailable, match="Qdrant does not answer"):
        await index.query(direction(0), None, Filters(), 10)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        ("401 Unauthorized", SettingsError, "CRAWLSCOPE_QDRANT_API_KEY"),
        ("403 Forbidden", SettingsError, "CRAWLSCOPE_QDRANT_API_KEY"),
        ("500 Internal Server Error", IndexUnavailable, "refused a request: Unexpected Response: 500"),
        ("503 Service Unavailable", IndexUnavailable, "503"),
        ("200 OK", IndexUnavailable, "does not answer"),
    ],
)
async def test_refusals_are_told_apart(status: str, error: type[CrawlscopeError], says: str) -> None:
    async with answering(status, {"status": {"error": "no"}}) as index:
        with pytest.raises(error, match=says) as caught:
            await index.size()
    assert "\n" not in str(caught.value)


async def test_a_collection_of_another_dimension_is_refused() -> None:
    client = AsyncQdrantClient(":memory:")
    await QdrantServerIndex(client, DIMENSION).size()
    with pytest.raises(IndexUnusable, match="crawlscope was not made for vectors of 7 dimensions"):
        await QdrantServerIndex(client, 7).size()
    assert (await QdrantServerIndex(client, 7, collection="other").size()).chunks == 0
    await client.close()


async def test_several_processes_share_one_collection() -> None:
    client = AsyncQdrantClient(":memory:")
    one, other = (QdrantServerIndex(client, DIMENSION) for _ in range(2))
    await one.upsert([make_chunk("https://h/", "apple")])
    found = await other.query(None, BM25.encode_query("apple"), Filters(), 10)
    assert urls(found.bm25) == ["https://h/"]
    await client.close()
