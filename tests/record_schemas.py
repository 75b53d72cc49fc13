"""Records what the versions of this project stored and answered, for the tests of upgrades.

    python -m tests.record_schemas COMMIT…

Runs the service of each commit, delivers recorded crawls to it, and keeps a dump of its database and its
answers in `tests/recordings/schemas`, named by the revision of its tables. Run it before a migration is
added, with the last commit of the former revision.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.postgres_programs import find_programs
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.postgres import ask
from tests.support.recordings import RECORDINGS, recording
from tests.support.stack import Stack, eventually, page_event, running_stack

SCHEMAS = RECORDINGS / "schemas"
CRAWLS = {
    "append": "b-v2-batch-append",
    "append-again": "b-v2-batch-append",
    "start404": "b-v1-crawl-start404",
    "refused": "v2-crawl-startrefused",
    "filtered": "b-v2-crawl-events-page-failed",
}
"""By crawl id its recording. A crawl that brings the same as the one before has unchanged pages."""
WAITING = "waiting"
"""A crawl with a page that waits, because the embedder was down."""


def main(commits: list[str]) -> None:
    SCHEMAS.mkdir(exist_ok=True)
    for commit in commits:
        with checked_out(commit) as source, tempfile.TemporaryDirectory(prefix="crawlscope-") as folder:
            record(source, Path(folder))


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crawlscope-") as folder:
        archive = subprocess.run(["git", "archive", commit, "src"], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder) / "src"


def record(source: Path, folder: Path) -> None:
    server = EmbeddedPostgres(folder / "server")
    try:
        url = server.acquire()
        with FakeEmbeddingServer() as embedder:
            settings = {
                "DATABASE_URL": url,
                "WORKERS": "1",
                "EMBEDDER": "tei",
                "EMBEDDER_URL": embedder.url,
            }
            with python_path(source), running_stack(folder / "data", **settings) as stack:
                answers = fill(stack, embedder)
        revision = str(ask(url, "SELECT version_num FROM public.crawlscope_alembic_version"))
        (SCHEMAS / f"{revision}.sql.gz").write_bytes(compressed(dump(url)))
        (SCHEMAS / f"{revision}.json.gz").write_bytes(compressed(json.dumps(answers).encode()))
        Console().print(revision, "recorded")
    finally:
        server.release()


@contextmanager
def python_path(source: Path) -> Iterator[None]:
    """Processes that start in the block import the package from there."""
    os.environ["PYTHONPATH"] = str(source)
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]


def fill(stack: Stack, embedder: FakeEmbeddingServer) -> dict[str, Any]:
    """Returns the answers about each crawl, `crawl` and `pages`."""
    for crawl_id, name in CRAWLS.items():
        for delivery in recording(name, crawl_id):
            assert stack.deliver(delivery).status_code == 202
        stack.settled(crawl_id)
    embedder.fail_with(503)
    assert stack.post_event(page_event(WAITING)).status_code == 202
    eventually(lambda: attempts_of(stack, WAITING), bool)
    return {
        crawl_id: {"crawl": stack.crawl(crawl_id), "pages": stack.pages(crawl_id)}
        for crawl_id in (*CRAWLS, WAITING)
    }


def attempts_of(stack: Stack, crawl_id: str) -> int:
    """The attempts at its pages that wait."""
    return sum(page["attempts"] for page in stack.pages(crawl_id) if page["state"] == "queued")


def dump(url: str) -> bytes:
    """Statements that any client can run on any server; each is of one line or of several."""
    options = ("--inserts", "--rows-per-insert=100", "--no-owner", "--no-privileges", f"--dbname={url}")
    command = find_programs(None).command("pg_dump", *options)
    script = subprocess.run(command, check=True, capture_output=True).stdout
    of_newer_servers = (b"\\restrict ", b"\\unrestrict ", b"SET transaction_timeout ")
    return b"\n".join(line for line in script.split(b"\n") if not line.startswith(of_newer_servers))


def compressed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


if __name__ == "__main__":
    main(sys.argv[1:])
