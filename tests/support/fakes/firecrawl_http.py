"""The HTTP under a fake Firecrawl: one function answers every request."""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.fakes.loopback import LoopbackServer


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Their names in lower case."""
    content: bytes

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def body(self) -> dict[str, Any]:
        """Empty for a request without content."""
        return json.loads(self.content) if self.content else {}

    @property
    def starts(self) -> bool:
        return self.method == "POST"


@dataclass(frozen=True)
class Reply:
    status: int
    body: object
    """A string is sent as HTML, bytes too; anything else as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(value: object) -> bytes:
    """As JavaScript writes it: unescaped but for lone surrogates."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


Answer = Callable[[Request, str], Reply | None]
"""Given the request and its Host; None breaks the connection in place of an answer."""


class Server(LoopbackServer):
    allow_reuse_address = True

    def __init__(self, port: int, answer: Answer) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), partial(_Handler, answer))
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self) -> None:
        """From now on connections are refused, and those that are open are closed."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def __init__(self, answer: Answer, *connection: Any) -> None:
        self._answer = answer
        super().__init__(*connection)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self._answer(Request(self.command, self.path, headers, content), headers["host"])
        if reply is None:
            self.close_connection = True
            return
        html = isinstance(reply.body, str)
        content = str(reply.body).encode() if html else as_json(reply.body)
        self.send_response(reply.status)
        kind = f"{'text/html' if html else 'application/json'}; charset=utf-8"
        self.send_header("Content-Length", str(len(content)))
        for name, value in {"Content-Type": kind, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """Tests read `requests` instead."""
