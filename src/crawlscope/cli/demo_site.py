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
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from crawlscope.core.errors import CrawlscopeError

# Chosen for text worth searching and imports without side effects. Modules that a Python lacks are left out.
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

BUILD_SECONDS = 120
LINK = re.compile(r'<a href="([^"]*)"[^>]*>(.*?)</a>', re.DOTALL)
SOURCE_LINK = re.compile(r'<a href="file:[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
ADDRESS = re.compile(r"(?: |&nbsp;)at(?: |&nbsp;)0x[0-9a-fA-F]+")


def build(folder: Path, modules: Sequence[str] = MODULES) -> int:
    """Writes one page per module and an index with links to all; returns the number of pages.

    The pages link only to each other and to docs.python.org, and are the same each time they are built. A
    module that cannot be imported or documented is left out. A process of its own writes them, because
    documenting a module imports it, and the documentation of `os` shows the environment.
    Raises `CrawlscopeError` if the folder cannot be written or it takes longer than two minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-W", "ignore", "-m", __name__, str(folder), *modules]
    try:
        subprocess.run(  # noqa: S603  # our own interpreter and module
            command,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=BUILD_SECONDS,
            env={"PYTHONHASHSEED": "0"},
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise CrawlscopeError(f"the demo site could not be written to {folder}: {error}") from error
    written = [module for module in modules if (folder / f"{module}.html").is_file()]
    known = {f"{module}.html" for module in written}
    for name in known:
        page = folder / name
        page.write_text(_cleaned(page.read_text(encoding="utf-8"), known), encoding="utf-8")
    (folder / "index.html").write_text(_index(written), encoding="utf-8")
    return len(written) + 1


@contextlib.contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """Serves the folder on the loopback interface; gives the URL of its index.

    Another free port replaces a `port` that is in use.
    """
    handler = partial(QuietHandler, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with server:
        thread = threading.Thread(target=server.serve_forever, name="demo-site", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """Logs nothing: the terminal belongs to the demo."""


def document(modules: Iterable[str], folder: Path) -> None:
    for name in modules:
        page = ""
        with contextlib.suppress(Exception, SystemExit):  # importing a module runs it
            module = importlib.import_module(name)
            page = pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, name))
        if page:
            (folder / f"{name}.html").write_text(page, encoding="utf-8")


def _cleaned(page: str, known: set[str]) -> str:
    """Without paths and addresses of this machine, and without links to pages that do not exist."""

    def kept(link: re.Match[str]) -> str:
        target = html.unescape(link[1]).partition("#")[0]
        exists = target in known or target in ("", "index.html")
        return link[0] if exists or target.startswith("https://docs.python.org/") else link[2]

    page = SOURCE_LINK.sub(lambda link: re.split(r"[/\\]", link[1])[-1], page)
    page = ADDRESS.sub("", page).replace(sys.base_prefix, "").replace('href="."', 'href="index.html"')
    return LINK.sub(kept, page)


def _index(modules: list[str]) -> str:
    links = "\n".join(f'<li><a href="{module}.html">{module}</a></li>' for module in modules)
    version = ".".join(map(str, sys.version_info[:2]))
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>The standard library of Python {version}</title></head>
<body><main>
<h1>The standard library of Python {version}</h1>
<p>The documentation of {len(modules)} modules, written by Python itself.</p>
<ul>
{links}
</ul>
</main></body>
</html>
"""


if __name__ == "__main__":
    document(sys.argv[2:], Path(sys.argv[1]))
