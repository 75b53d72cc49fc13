"""An embedding server that answers at once, in a process of its own: what remains is not embedding.

It answers as Text Embeddings Inference (`/info`, `/embed`) and as OpenAI (`/v1/embeddings`). A text has
the same made-up vector each time, and different texts have different ones.
"""

import asyncio
import json
import multiprocessing
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np

DIMENSION = 384
VECTORS = 4_096
MAX_TEXTS = 32
INFO = {
    "model_id": "instant",
    "max_input_length": 512,
    "max_batch_tokens": 16_384,
    "auto_truncate": True,
}


@contextmanager
def instant_embedder(seconds_per_request: float = 0.0, max_texts: int = MAX_TEXTS) -> Iterator[str]:
    """The server's URL. It takes at most `max_texts` in a request."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, seconds_per_request, max_texts), daemon=True)
    process.start()
    theirs.close()  # so that its death ends the wait
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(announce: Connection, seconds_per_request: float, max_texts: int) -> None:
    asyncio.run(_server(announce, seconds_per_request, max_texts))


async def _server(announce: Connection, seconds_per_request: float, max_texts: int) -> None:
    vectors = np.random.default_rng(5).standard_normal((VECTORS, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = [json.dumps([round(float(x), 7) for x in vector]).encode() for vector in vectors]
    base64 = [b'"%b"' % b64encode(vector.tobytes()) for vector in vectors]
    info = json.dumps({**INFO, "max_client_batch_size": max_texts}).encode()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Answers(numbers, base64, info, seconds_per_request), "127.0.0.1", 0
    )
    announce.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Answers(asyncio.Protocol):
    """Reads whole requests of HTTP/1.1, as its clients send them."""

    def __init__(
        self, numbers: list[bytes], base64: list[bytes], info: bytes, seconds_per_request: float
    ) -> None:
        self._numbers, self._base64 = numbers, base64
        self._info = info
        self._seconds = seconds_per_request
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            body = bytes(self._received[end + 4 : end + 4 + length])
            del self._received[: end + 4 + length]
            answer = self._answer(head.split(None, 2)[1], body)
            response = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(answer), answer)
            )
            if self._seconds:
                asyncio.get_running_loop().call_later(self._seconds, self._transport.write, response)
            else:
                self._transport.write(response)

    def _answer(self, path: bytes, body: bytes) -> bytes:
        if path == b"/info":
            return self._info
        asked = json.loads(body)
        texts = asked["inputs" if path == b"/embed" else "input"]
        texts = [texts] if isinstance(texts, str) else texts
        vectors = self._base64 if asked.get("encoding_format") == "base64" else self._numbers
        rows = [vectors[zlib.crc32(str(text).encode()) % VECTORS] for text in texts]
        if path == b"/embed":
            return b"[" + b",".join(rows) + b"]"
        data = b",".join(b'{"index":%d,"embedding":%b}' % (n, row) for n, row in enumerate(rows))
        usage = b'{"prompt_tokens":1,"total_tokens":1}'
        return b'{"object":"list","model":"instant","data":[' + data + b'],"usage":' + usage + b"}"
