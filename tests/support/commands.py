"""Runs the command line as a user does, and sees which processes a data folder still has."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from tests.support.fakes.loopback import LoopbackServer

PROGRAM = [sys.executable, "-m", "crawlscope"]
PAGES = 5


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLSCOPE_")}
    own = {"DATA_DIR": str(data_dir), "WORKERS": "1", "MIN_FREE_DISK_BYTES": "0", **settings}
    return inherited | {f"CRAWLSCOPE_{name}": value for name, value in own.items()} | {"COLUMNS": "80"}


def crawlscope(data_dir: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def start_crawlscope(data_dir: Path, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment(data_dir, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(data_dir: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _belongs(process, str(data_dir))]


def _belongs(process: psutil.Process, folder: str) -> bool:
    """By what it was started with, or, for the database's own, where it works."""
    try:
        named = process.environ().get("CRAWLSCOPE_DATA_DIR") == folder or folder in process.cmdline()
        return (named or process.cwd().startswith(folder)) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextmanager
def website(answer_seconds: float = 0) -> Iterator[str]:
    """Five pages that link to each other, each answered after so long; gives the URL of the first."""
    closing = Event()
    handler = partial(_Page, lambda: closing.wait(answer_seconds))
    with LoopbackServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/1"
        closing.set()
        server.shutdown()
        thread.join()


class _Page(BaseHTTPRequestHandler):
    def __init__(self, wait: Callable[[], Any], *request: Any) -> None:
        self._wait = wait
        super().__init__(*request)

    def do_GET(self) -> None:
        name = self.path.strip("/")
        known = name.isdigit() and 1 <= int(name) <= PAGES
        body = _html(int(name)).encode() if known else b"not here"
        if known:
            self._wait()
        with suppress(ConnectionError):  # of a crawler that was stopped
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Test output is for tests."""


def _html(number: int) -> str:
    links = "".join(f'<a href="/{other}">page {other}</a> ' for other in range(1, PAGES + 1))
    words = f"<p>Otters number {number} float on their backs while they eat shellfish.</p>"
    head = f"<head><title>Page {number}</title></head>"
    return f"<html>{head}<body><main><h1>Page {number}</h1>{words}{links}</main></body></html>"
