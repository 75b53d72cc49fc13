"""An embedding server on loopback that speaks both dialects and can misbehave on request."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

import numpy as np

from tests.support.fakes.loopback import LoopbackServer


@dataclass(frozen=True)
class Request:
    path: str
    texts: list[str]
    authorization: str | None
    body: dict[str, Any]
    traceparent: str | None = None


@dataclass
class FakeEmbeddingServer:
    """Vectors depend on nothing but the text: `vector(text)` says which to expect.

    All switches may be turned at any time and hold from the next request on.
    """

    dimension: int = 64
    model: str = "fake/embedder"
    salt: str = ""
    """Servers of another one answer other vectors."""
    max_batch: int = 32
    """More texts in one request are refused, as a real server does: 413."""
    max_characters: int | None = None
    """A longer text is refused: 413 from TEI, 400 with OpenAI's wording from the other."""
    refuses: str | None = None
    """A text with this in it is refused as too long."""
    fail_after: int | None = None
    """Answers 503 to all but the next so many requests that embed something."""
    delay_seconds: float = 0.0
    answer_nan: bool = False
    answer_html: bool = False
    wrong_dimension: bool = False
    drop_last: bool = False
    shuffle: bool = False
    """OpenAI only: the items come in reverse order, each with its `index`."""
    broken_by: str | None = None
    """A request with this in a text gets 500."""
    stuck_on: str | None = None
    """A request with this in a text gets no answer for as long as this holds."""
    base64: bool | None = True
    """OpenAI only: whether vectors may be asked for in base64; None answers numbers instead."""
    auto_truncate: bool = False
    """TEI only: whether it was started to cut texts that are too long, on each endpoint."""
    shortens: bool = True
    """OpenAI only: vectors are as long as the request says."""
    api_key: str | None = None
    """Requests without it get 401, and the refusal repeats the key they brought."""
    requests: list[Request] = field(default_factory=list)
    """The embedding requests received, refused ones included."""
    _failures: list[int] = field(default_factory=list)
    _failing: int | None = None

    def fail_with(self, status: int | None, times: int | None = None) -> None:
        """Answers `status` to everything: for ever, or `times` times; None ends it."""
        self._failing = status if times is None else None
        self._failures = [] if times is None or status is None else [status] * times

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def vector(self, text: str) -> list[float]:
        noise = hashlib.shake_128((self.salt + text).encode()).digest(self.dimension)
        numbers = np.frombuffer(noise, np.uint8).astype(np.float64) - 127.5
        return [float(number) for number in numbers / np.linalg.norm(numbers)]

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = LoopbackServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on connections are refused; may be called again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def info(self) -> dict[str, Any]:
        return {
            "model_id": self.model,
            "model_sha": "0123456789abcdef",
            "model_dtype": "float32",
            "model_type": {"embedding": {"pooling": "mean"}},
            "max_input_length": 512,
            "max_batch_tokens": 16384,
            "max_client_batch_size": self.max_batch,
            "auto_truncate": self.auto_truncate,
            "version": "1.8.0",
        }

    def takes_next(self) -> bool:
        if self.fail_after is None:
            return True
        self.fail_after -= 1
        return self.fail_after >= 0

    def failure(self) -> int | None:
        return self._failures.pop() if self._failures else self._failing

    def rows(self, texts: Sequence[str]) -> list[list[float]]:
        rows = [self.vector(text) for text in texts]
        if self.answer_nan:
            rows[-1][0] = float("nan")
        if self.wrong_dimension:
            rows = [row[:-1] for row in rows]
        return rows[:-1] if self.drop_last else rows


class _Handler(BaseHTTPRequestHandler):
    fake: FakeEmbeddingServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer({} if self.path != "/info" else self.fake.info())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = body.get("inputs") or body.get("input") or []
        fake = self.fake
        authorization, traceparent = self.headers.get("Authorization"), self.headers.get("traceparent")
        fake.requests.append(Request(self.path, texts, authorization, body, traceparent))
        while fake.stuck_on and any(fake.stuck_on in text for text in texts):
            time.sleep(0.02)
        refusal = self._refuse(texts, body)
        if refusal:
            return self._send(*refusal)
        rows: list[Any] = fake.rows(texts)
        if self.path == "/embed":
            return self._answer(rows)
        if fake.shortens and "dimensions" in body:
            rows = [row[: body["dimensions"]] for row in rows]
        if fake.base64 and body.get("encoding_format") == "base64":
            rows = [_in_base64(row) for row in rows]
        items = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        return self._answer({"object": "list", "data": items[::-1] if fake.shuffle else items})

    def _refuse(self, texts: list[str], body: dict[str, Any]) -> tuple[int, object] | None:
        fake = self.fake
        tei = self.path == "/embed"
        if fake.api_key and self.headers.get("Authorization") != f"Bearer {fake.api_key}":
            key = self.headers.get("Authorization", "none").removeprefix("Bearer ")
            return 401, {"error": {"message": f"Incorrect API key provided: {key}"}}
        if fake.base64 is False and body.get("encoding_format") == "base64":
            return 400, {"error": {"message": "encoding_format: only float"}}
        if fake.broken_by and any(fake.broken_by in text for text in texts):
            return 500, {"error": "this text is too much for me"}
        if len(texts) > fake.max_batch:
            message = f"batch size {len(texts)} > maximum allowed batch size {fake.max_batch}"
            return (
                (413, {"error": message, "error_type": "Validation"}) if tei else (422, {"detail": message})
            )
        if not fake.takes_next():
            return 503, {"error": "told to fail"}
        too_long = fake.max_characters and any(len(text) > fake.max_characters for text in texts)
        if too_long or (fake.refuses and any(fake.refuses in text for text in texts)):
            message = "This model's maximum context length is 512 tokens"
            return (413, {"error": message}) if tei else (400, {"error": {"message": message}})
        return None

    def _answer(self, answer: object) -> None:
        self._send(200, answer)

    def _send(self, status: int, answer: object) -> None:
        fake = self.fake
        time.sleep(fake.delay_seconds)
        failure = fake.failure()
        if failure:
            status, answer = failure, {"error": "told to fail"}
        content = b"<html>a proxy's page</html>" if fake.answer_html else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if fake.answer_html else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
        """Says nothing: a test's output is its own."""


def _in_base64(row: Any) -> Any:
    """A row that is no vector stays as it is."""
    try:
        with np.errstate(over="ignore"):
            return base64.b64encode(np.fromiter(row, "<f4").tobytes()).decode()
    except (TypeError, ValueError):
        return row
