"""Heads of requests without end are not read, and connections are kept while clients may use them."""

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from crawlscope.core.settings import Settings
from tests.support.serving import serving

PIECE = 65_536
PIECES = 256
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
TRAILER = b"POST /sign-in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: "


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None, data_dir=tmp_path, port=0, database_url=database_url, qdrant_url="http://[::1]:1"
    )


async def answer_and_pieces_taken(url: str, begin: bytes, piece: bytes, pieces: int) -> tuple[bytes, int]:
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    taken = 0
    try:
        with suppress(ConnectionError):
            writer.write(begin)
            while taken < pieces:
                writer.write(piece)
                await writer.drain()
                taken += 1
            writer.write(b"\r\n\r\n")
            return await reader.readline(), taken
        return b"", taken
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD + b"X-Long: ", b"a" * PIECE),
        (HEAD, b"X-Many: a\r\n" * (PIECE // 11)),
        (b"GET /", b"a" * PIECE),
        (TRAILER, b"a" * PIECE),
    ],
)
async def test_a_head_without_end_is_not_read(settings: Settings, begin: bytes, piece: bytes) -> None:
    async with serving(settings) as running:
        answer, taken = await answer_and_pieces_taken(running.url, begin, piece, PIECES)
        assert b" 200 " not in answer
        assert taken < PIECES
        answer, _ = await answer_and_pieces_taken(running.url, HEAD + b"X-Long: ", b"a" * (PIECE // 2), 1)
        assert answer == b"HTTP/1.1 200 OK\r\n"


async def test_a_connection_that_was_unused_for_a_while_takes_a_request(settings: Settings) -> None:
    """Many clients keep one for 4 or 5 s, and must not find that the service closes it at that moment."""
    async with serving(settings) as running:
        url = urlsplit(running.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        for pause in (6, 0):
            writer.write(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # whose answer has no body
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 ")
            await asyncio.sleep(pause)
        writer.close()
