"""A real website that any machine can build: the documentation of Python's standard library, by pydoc."""

import contextlib
import html
import http.server
import importlib
import pydoc
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from crawlscope.core.errors import CrawlscopeError

# Chosen for text worth searching and for imports without side effects; what a Python lacks is left out.
# fmt: off
MODULES = (
    "abc", "argparse", "array", "asyncio.events", "asyncio.futures", "asyncio.locks", "asyncio.queues",
    "asyncio.runners", "asyncio.streams", "asyncio.taskgroups", "asyncio.tasks", "asyncio.timeouts", "base64",
    "binascii", "bisect", "bz2", "calendar", "cmath", "cmd", "code", "codecs", "collections", "colorsys",
    "concurrent.futures", "concurrent.futures.process", "concurrent.futures.thread", "contextlib",
    "contextvars", "copy", "csv", "dataclasses", "datetime", "difflib", "dis", "email", "email.header",
    "email.parser", "email.utils", "errno", "faulthandler", "filecmp", "fileinput", "fnmatch", "fractions",
    "functools", "gc", "getopt", "getpass", "gettext", "glob", "graphlib", "gzip", "hashlib", "heapq", "hmac",
    "html", "html.entities", "html.parser", "http", "http.client", "http.cookiejar", "http.cookies",
    "importlib", "importlib.metadata", "importlib.resources", "inspect", "ipaddress", "itertools", "json",
    "json.decoder", "json.encoder", "keyword", "linecache", "locale", "logging", "logging.config", "lzma",
    "math", "mimetypes", "mmap", "numbers", "operator", "os", "pathlib", "pickle", "pkgutil", "platform",
    "pprint", "pstats", "queue", "random", "re", "reprlib", "sched", "secrets", "select", "selectors",
    "shelve", "shlex", "shutil", "sqlite3", "stat", "statistics", "string", "struct", "subprocess",
    "tempfile", "textwrap", "threading", "time", "timeit", "tokenize", "tomllib", "traceback", "tracemalloc",
    "types", "unicodedata", "urllib.error", "urllib.parse", "urllib.request", "urllib.robotparser", "uuid",
    "venv", "warnings", "wave", "weakref", "webbrowser", "xml.etree.ElementTree", "zipfile", "zlib",
    "zoneinfo",
)
# fmt: on

_BUILD_SECONDS = 120
_LINK = re.compile(r'<a href="([^"]*)"[^>]*>(.*?)</a>', re.DOTALL)
_SOURCE_LINK = re.compile(r'<a href="file:[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
_ADDRESS = re.compile(r"(?: |&nbsp;)at(?: |&nbsp;)0x[0-9a-fA-F]+")


def build(folder: Path, modules: Sequence[str] = MODULES) -> int:
    """Writes one page per module and an index that links to all; returns how many pages that makes.

    The pages link only to each other and to docs.python.org, and are the same each time they are built. A
    module that cannot be imported or documented is left out.
    Raises `CrawlscopeError` where the folder cannot be written or it takes longer than two minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_documentation(folder, modules)
    written = [module for module in modules if (folder / _file_of(module)).is_file()]
    known = {_file_of(module) for module in written}
    for name in known:
        page = folder / name
        page.write_text(_tidy(page.read_text(encoding="utf-8"), known), encoding="utf-8")
    (folder / "index.html").write_text(_index(written), encoding="utf-8")
    return len(written) + 1


@contextlib.contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """Serves the folder on the loopback interface; gives the URL of its index. A `port` that is taken is
    replaced by a free one."""
    handler = partial(_QuietHandler, directory=str(folder))
    with _bound_server(port, handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="demo-site", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()
            thread.join()


def _bound_server(port: int, handler: Callable[..., Any]) -> http.server.ThreadingHTTPServer:
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """The terminal belongs to the demo."""


def _file_of(module: str) -> str:
    return f"{module}.html"


def _write_documentation(folder: Path, modules: Sequence[str]) -> None:
    """In a process of its own, because documenting a module imports it, and `os` tells its environment."""
    command = [sys.executable, "-P", "-W", "ignore", "-m", __name__, str(folder), *modules]
    try:
        subprocess.run(  # noqa: S603  # our own interpreter and module
            command,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_BUILD_SECONDS,
            env={"PYTHONHASHSEED": "0"},
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise CrawlscopeError(f"the demo site could not be written to {folder}: {error}") from error


def _document(modules: Iterable[str], folder: Path) -> None:
    for name in modules:
        page = ""
        with contextlib.suppress(Exception, SystemExit):  # importing a module runs it
            module = importlib.import_module(name)
            page = pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, name))
        if page:
            (folder / _file_of(name)).write_text(page, encoding="utf-8")


def _tidy(page: str, known: set[str]) -> str:
    page = _SOURCE_LINK.sub(lambda link: re.split(r"[/\\]", link[1])[-1], page)
    page = _ADDRESS.sub("", page).replace(sys.base_prefix, "").replace('href="."', 'href="index.html"')
    return _LINK.sub(lambda link: link[0] if _leads_somewhere(link[1], known) else link[2], page)


def _leads_somewhere(href: str, known: set[str]) -> bool:
    target = html.unescape(href).partition("#")[0]
    return target in known or target in ("", "index.html") or target.startswith("https://docs.python.org/")


def _index(modules: list[str]) -> str:
    links = "\n".join(f'<li><a href="{_file_of(module)}">{module}</a></li>' for module in modules)
    version = ".".join(map(str, sys.version_info[:2]))
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>The standard library of Python {version}</title></head>
<body><main>
<h1>The standard library of Python {version}</h1>
<p>The documentation of {len(modules)} modules, as Python itself tells it.</p>
<ul>
{links}
</ul>
</main></body>
</html>
"""


if __name__ == "__main__":
    _document(sys.argv[2:], Path(sys.argv[1]))
