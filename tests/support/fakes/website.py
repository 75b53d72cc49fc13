"""A website on loopback that does whatever a test wants websites to do, over real sockets."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from tests.support.fakes.loopback import LoopbackServer


@dataclass(frozen=True)
class Page:
    body: bytes | str = ""
    status: int = 200
    content_type: str | None = "text/html; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    """Before the first byte of the answer."""
    drip_seconds: float = 0.0
    """Between single bytes of the body."""
    reset: bool = False
    """The connection is reset in place of an answer."""
    truncated: bool = False
    """The connection ends before the promised body does."""


_OF_THE_SITE = ("/robots.txt", "/sitemap.xml")
Answer = Callable[[str], Page | None]


def html(
    body: str = "",
    *,
    title: str = "",
    links: Iterable[str] = (),
    lang: str = "en",
    head: str = "",
    headers: dict[str, str] | None = None,
) -> Page:
    anchors = "".join(f'<a href="{link}">{link}</a> ' for link in links)
    head = f"<head><title>{title}</title>{head}</head>"
    return Page(
        f'<!DOCTYPE html><html lang="{lang}">{head}<body>{body}<p>{anchors}</p></body></html>',
        headers=headers or {},
    )


def redirect(target: str, status: int = 302) -> Page:
    return Page(status=status, headers={"Location": target})


class Website:
    """`pages` by path with query; `answer` may make up further ones; anything else is a 404."""

    def __init__(
        self,
        pages: dict[str, Page] | None = None,
        *,
        robots: str | Page | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.pages = dict(pages or {})
        if robots is not None:
            self.pages["/robots.txt"] = (
                Page(robots, content_type="text/plain") if isinstance(robots, str) else robots
            )
        self.answer = answer
        self.requests: list[str] = []
        """Paths with their queries in the order they were asked for, without robots.txt and a sitemap.xml
        that is not there."""
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = LoopbackServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page_for(self, path: str) -> Page:
        made_up = self.answer(path) if self.answer and path not in _OF_THE_SITE else None
        return self.pages.get(path) or made_up or Page("<h1>Not found</h1>", status=404)

    def wait_until_asked_for(self, path: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while path not in self.requests:
            assert time.monotonic() < deadline, f"nobody asked for {path}"
            time.sleep(0.005)

    def begin(self, path: str, headers: dict[str, str]) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            if path not in _OF_THE_SITE or path in self.pages.keys() - {"/robots.txt"}:
                self.requests.append(path)
                self.headers.append(headers)

    def end(self) -> None:
        with self._lock:
            self._at_once -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site: Website, *connection: Any) -> None:
        self.site = site
        super().__init__(*connection)

    def do_GET(self) -> None:
        self.site.begin(self.path, {name.lower(): value for name, value in self.headers.items()})
        try:
            self._answer(self.site.page_for(self.path))
        finally:
            self.site.end()

    def _answer(self, page: Page) -> None:
        time.sleep(page.delay_seconds)
        if page.reset:
            self._reset()
            return
        body = page.body.encode() if isinstance(page.body, str) else page.body
        self.send_response(page.status)
        if page.content_type is not None:
            self.send_header("Content-Type", page.content_type)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in page.headers:
            self.send_header("Content-Length", str(len(body) + (100 if page.truncated else 0)))
        self.end_headers()
        self._write(body, page.drip_seconds)
        self.close_connection = page.truncated

    def _write(self, body: bytes, drip_seconds: float) -> None:
        if not drip_seconds:
            self.wfile.write(body)
            return
        for position in range(len(body)):
            self.wfile.write(body[position : position + 1])
            self.wfile.flush()
            time.sleep(drip_seconds)

    def _reset(self) -> None:
        """No lingering: the peer sees RST in place of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = self.rfile = _Nowhere()  # type: ignore[assignment]  # the base class flushes and closes both

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """Tests read `requests` instead."""


class _Nowhere:
    closed = True

    def flush(self) -> None: ...

    def close(self) -> None: ...
