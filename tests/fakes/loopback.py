"""What the servers that tests start in their own process have in common."""

import sys
from http.server import ThreadingHTTPServer


class LoopbackServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    """With the usual 5 a burst of connections loses some, and each loss costs a second."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up; a traceback written in a thread can break what others do with `ast`."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
