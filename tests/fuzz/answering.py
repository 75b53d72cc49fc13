"""A server that sends any given bytes as its answer, as clients of other services may get them."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

from tests.fuzz.mutations import ODD_TEXTS, changed_bytes

STATUSES = (*[200] * 12, 201, 204, 301, 302, 400, 401, 403, 404, 409, 413, 422, 424, 429, 500, 503, 999)
HEADERS = (
    """
Retry-After: 0|Retry-After: 1e400|Retry-After: Thu, 99 Foo 2026|Content-Encoding: br|Content-Type: text/html
Content-Type: application/json; charset=x|Location: http://[::1|Location: http://169.254.169.254/
Set-Cookie: a=b|Link: <a>; rel=canonical|Refresh: 0;url=x|X-Robots-Tag: none|Content-Type: application/xml
Content-Type: text/plain;charset=utf-16
""".strip()
    .replace("\n", "|")
    .split("|")
)


class AnsweringServer:
    """Answers each request with `response`, and hangs up."""

    url: str
    response: bytes = b""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length: " in head:
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(self.response)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def answering() -> AsyncIterator[AnsweringServer]:
    answering = AnsweringServer()
    server = await asyncio.start_server(answering.handle, "127.0.0.1", 0)
    answering.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield answering
    finally:
        server.close()


def response(rng: Random, body: bytes, content_type: str = "application/json") -> bytes:
    """An HTTP response: mostly a right one with this body, sometimes compressed, cut off or no HTTP."""
    headers = [f"Content-Type: {content_type}", "Connection: close"]
    headers += rng.sample(HEADERS, rng.choice((0, 0, 0, 1, 3)))
    if rng.random() < 0.1:
        headers.append(f"X-Odd: {rng.choice(ODD_TEXTS)[:60_000]}")
    match rng.randrange(12):
        case 0:
            body, headers = gzip.compress(body), [*headers, "Content-Encoding: gzip"]
        case 1:
            bomb = zlib.compress(bytes(rng.choice((1, 30, 200)) << 20), 1)
            body, headers = bomb, [*headers, "Content-Encoding: deflate"]
        case 2:
            headers.append("Content-Encoding: gzip")
    match rng.randrange(10):
        case 0:
            headers.append("Content-Length: 99999999999999999999")
        case 1:
            headers.append("Transfer-Encoding: chunked")
        case 2:
            pass
        case _:
            headers.append(f"Content-Length: {len(body)}")
    head = f"HTTP/1.1 {rng.choice(STATUSES)} Odd\r\n" + "\r\n".join(headers) + "\r\n\r\n"
    whole = head.encode("utf-8", "replace") + body
    return changed_bytes(rng, whole) if rng.random() < 0.1 else whole
