"""A changedetection.io on loopback, as far as its API makes and lists watches; it can misbehave on request.

Checks requests as version 0.60.10 does, and refuses in its words.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from tests.support.fakes.firecrawl_http import Reply, Request, Server

KEY = "watch-api-key-0123456789"
FIELDS = {"url", "title", "notification_urls", "notification_format", "notification_body"}
"""Those of its many that Crawlscope has a use for."""
FORMATS = {"text", "html", "htmlcolor", "markdown", "System default"}
LONGEST = {"url": 5_000, "title": 5_000, "notification_body": 5_000}
MAX_NOTIFICATION_URL = 1_000


class FakeChangedetection:
    def __init__(self, *, base_path: str = "") -> None:
        self.base_path = base_path
        """The path under which a proxy would serve it."""
        self.watches: dict[str, dict[str, Any]] = {}
        self.watch_limit: int | None = None
        self.delay_seconds = 0.0
        """Before each answer."""
        self.requests: list[Request] = []
        """As they came, refused ones included."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._misbehaviour: list[tuple[Callable[[Request], bool], Reply | None, bool]] = []

    def __enter__(self) -> Self:
        self._server = Server(0, self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}{self.base_path}"

    @property
    def watched(self) -> list[str]:
        return [watch["url"] for watch in self.watches.values()]

    @property
    def posted(self) -> list[dict[str, Any]]:
        return [request.body for request in self.requests if request.method == "POST"]

    def watch(self, url: str) -> None:
        """As somebody else did before."""
        self.watches[str(uuid4())] = {"url": url}

    def answer_with(
        self,
        *replies: Reply | None,
        applies_to: Callable[[Request], bool] = lambda _: True,
        done: bool = False,
    ) -> None:
        """To as many of the requests that it applies_to; None breaks the connection.

        With `done` what was asked for is carried out all the same.
        """
        self._misbehaviour += [(applies_to, reply, done) for reply in replies]

    def behave(self) -> None:
        self._misbehaviour.clear()

    def _answer(self, request: Request, _host: str) -> Reply | None:
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay_seconds)
        with self._lock:
            self._at_once -= 1
            for each in self._misbehaviour:
                applies_to, reply, done = each
                if applies_to(request):
                    self._misbehaviour.remove(each)
                    if done:
                        self._routed(request)
                    return reply
            return self._routed(request)

    def _routed(self, request: Request) -> Reply:
        if request.path != f"{self.base_path}/api/v1/watch":
            return Reply(404, "<!doctype html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n")
        if request.headers.get("x-api-key") != KEY:
            return said(403, "Invalid access - API key invalid.")
        if request.method == "GET":
            return Reply(200, {uuid: _listed(watch) for uuid, watch in self.watches.items()})
        return self._create(request.body)

    def _create(self, body: dict[str, Any]) -> Reply:
        complaint = _schema_complaint(body)
        if complaint:
            return Reply(400, {"message": f"Validation failed: {complaint}"})
        parts = urlsplit(body["url"])
        if parts.scheme not in ("http", "https", "ftp") or not parts.hostname:
            return said(400, "Invalid or unsupported URL")
        for url in body.get("notification_urls", []):
            if urlsplit(url).scheme not in ("post", "posts"):
                return said(400, f"'{url}' is not a valid AppRise URL.")
        if self.watch_limit is not None and len(self.watches) >= self.watch_limit:
            count = f"{len(self.watches)}/{self.watch_limit} watches"
            return said(429, f"Watch limit reached ({count}). Cannot add more watches.")
        uuid = str(uuid4())
        self.watches[uuid] = body
        return Reply(201, {"uuid": uuid})


def said(status: int, words: str) -> Reply:
    """Its answers are JSON, also where they are nothing but a sentence."""
    return Reply(status, json.dumps(words), {"Content-Type": "application/json"})


def _schema_complaint(body: dict[str, Any]) -> str | None:
    if "url" not in body:
        return "body: 'url' is a required property"
    unknown = body.keys() - FIELDS
    if unknown:
        return f"body: unknown fields {sorted(unknown)}"
    for name, longest in LONGEST.items():
        if len(body.get(name, "")) > longest:
            return f"{name}: {body[name]!r} is too long"
    if any(len(url) > MAX_NOTIFICATION_URL for url in body.get("notification_urls", [])):
        return "notification_urls.0: is too long"
    if body.get("notification_format", "text") not in FORMATS:
        return f"notification_format: {body['notification_format']!r} is not one of {sorted(FORMATS)}"
    return None


def _listed(watch: dict[str, Any]) -> dict[str, Any]:
    return {
        "last_changed": 0,
        "last_checked": 0,
        "last_error": False,
        "link": watch["url"],
        "open_link": watch["url"],
        "page_title": None,
        "tags": [],
        "title": watch.get("title"),
        "url": watch["url"],
        "viewed": True,
    }
