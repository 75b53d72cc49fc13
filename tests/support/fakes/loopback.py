"""The common base of servers that tests start in their own process."""

import secrets
import socket
import sys
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    """With the usual 5 a burst of connections loses some, and each loss costs a second."""

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        """Port 0 for one that no other process gets while the server is down."""
        host, port = address
        super().__init__((host, port or free_port()), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up; a traceback written in a thread can break what others do with `ast`."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def free_port() -> int:
    """Nobody listens there; below what systems give to those who ask for any port, so nobody will soon."""
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
