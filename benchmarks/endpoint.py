"""How fast the webhook endpoint is, against a bare endpoint that only inserts the body.

    python -m benchmarks.endpoint [--quick] [--pages N] [--rounds N] [--json FILE]

Ours is `crawlscope serve` without workers. Bare is a Starlette application with one asyncpg INSERT of the
body per request. Both write to the same embedded PostgreSQL, which flushes each commit to disk. A process of
its own sends the same bodies of real pages (20 to 60 kB) to them in turns: the pages of one crawl, each new.
"""

import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import psutil
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.pages import pages_of_site
from benchmarks.part import Options, Row, number, run_alone
from benchmarks.service import API_SECRET
from crawlscope.core.service_file import WEBHOOK_PATH
from crawlscope.core.settings import ENV_PREFIX
from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database
from crawlscope.database.postgres_cluster import Cluster

PART = "endpoint"
MIN_RATIO = 0.5
CONNECTIONS = 64
SMALLEST, LARGEST = 20_000, 60_000
POOL_SIZE = 24
"""Connections of the bare endpoint: as many as ours may hold."""
START_SECONDS = 60
STATEMENT = re.compile(rb"LOG:  (?:execute|statement)")


@dataclass(frozen=True)
class Round:
    """One round at one endpoint. CPU is milliseconds per delivery, besides the sender's."""

    per_second: float
    p50_ms: float
    p99_ms: float
    endpoint_cpu_ms: float
    postgres_cpu_ms: float


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint: where it listens, and its process."""

    port: int
    path: str
    process: psutil.Process


# ---------------------------------------------------------------------- the bare endpoint, in its process


def serve_bare(database_url: str, port: int) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
            await pool.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body bytea)")
            app.state.pool = pool
            yield

    async def insert(request: Request) -> JSONResponse:
        await request.app.state.pool.execute("INSERT INTO bare (body) VALUES ($1)", await request.body())
        return JSONResponse({"status": "queued"}, status_code=202)

    app = Starlette(routes=[Route(WEBHOOK_PATH, insert, methods=["POST"])], lifespan=lifespan)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


# ---------------------------------------------------------------------- the sender, in its process


async def send(port: int, pages: Sequence[bytes], deliveries: int, connections: int) -> None:
    """Prints the seconds in all and the milliseconds of each delivery."""
    crawl_id, numbers, took_ms = str(uuid4()), iter(range(deliveries)), []

    async def sender() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for page in numbers:
            began = time.perf_counter()
            writer.write(_request(crawl_id, page, pages[page % len(pages)]))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            answer = await reader.readexactly(int(length[1]) if length else 0)
            if not head.startswith(b"HTTP/1.1 202"):
                raise SystemExit(f"refused: {head!r} {answer!r}")
            took_ms.append((time.perf_counter() - began) * 1000)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*[sender() for _ in range(connections)])
    print(json.dumps({"seconds": time.perf_counter() - began, "took_ms": took_ms}))


def _request(crawl_id: str, number: int, markdown: bytes) -> bytes:
    """`markdown` is JSON already."""
    url = f"https://{crawl_id}.example/section/page-{number}.html"
    scraped = {
        "title": f"Page {number}",
        "description": "What this page is about, in a sentence of ordinary length.",
        "language": "en",
        "sourceURL": url,
        "url": url,
        "statusCode": 200,
        "contentType": "text/html; charset=utf-8",
        "scrapeId": str(uuid4()),
        "proxyUsed": "basic",
    }
    event = {"success": True, "type": "crawl.page", "id": crawl_id, "webhookId": str(uuid4())}
    head = json.dumps(event)[:-1].encode() + b', "data": [{"markdown": '
    tail = f', "metadata": {json.dumps(scraped)}}}], "metadata": {{}}}}'.encode()
    headers = (
        f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-API-Secret: {API_SECRET}\r\nContent-Length: {len(head) + len(markdown) + len(tail)}\r\n\r\n"
    )
    return b"".join((headers.encode(), head, markdown, tail))


# ---------------------------------------------------------------------- the measurement


@contextmanager
def running(port: int, *words: str, **environment: str) -> Iterator[Endpoint]:
    """A program that answers at the port, until the block ends."""
    command = [sys.executable, "-m", *words]
    child = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{words} does not start")
            time.sleep(0.1)
        yield Endpoint(port, WEBHOOK_PATH, psutil.Process(child.pid))
    finally:
        child.terminate()
        child.wait()


def _listens(port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,)
        for each in psutil.net_connections("tcp")
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """With that of children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def send_all(endpoint: Endpoint, cluster: Cluster, pages: Path, deliveries: int, connections: int) -> Round:
    def spent() -> tuple[float, float]:
        return cpu_seconds([endpoint.process]), cpu_seconds(cluster.processes())

    before = spent()
    words = [str(endpoint.port), str(pages), str(deliveries), str(connections)]
    sender = subprocess.run(
        [sys.executable, "-m", "benchmarks.endpoint", "send", *words], stdout=subprocess.PIPE, check=True
    )
    own, postgres = (after - was for was, after in zip(before, spent(), strict=True))
    sent = json.loads(sender.stdout)
    took = statistics.quantiles(sent["took_ms"], n=100)
    return Round(
        deliveries / sent["seconds"],
        took[49],
        took[98],
        own * 1000 / deliveries,
        postgres * 1000 / deliveries,
    )


async def statements(
    endpoint: Endpoint, url: str, cluster: Cluster, pages: Path, deliveries: int, connections: int
) -> float:
    """SQL statements per delivery, BEGIN and COMMIT included, as the server logs them."""

    async def log_statements(what: str) -> None:
        server = await asyncpg.connect(url)
        await server.execute(f"ALTER SYSTEM SET log_statement = '{what}'")
        await server.execute("ALTER SYSTEM SET log_parameter_max_length = 0")
        await server.execute("SELECT pg_reload_conf()")
        await server.close()
        await asyncio.sleep(1)  # sessions read it before their next statement

    await log_statements("all")
    counted = len(STATEMENT.findall(cluster.log.read_bytes()))
    send_all(endpoint, cluster, pages, deliveries, connections)
    counted = len(STATEMENT.findall(cluster.log.read_bytes())) - counted
    await log_statements("none")
    return counted / deliveries


async def measure(options: Options) -> Sequence[Row]:
    deliveries, rounds = options.pages_or(1_000, 300), options.rounds_or(3)
    found = await asyncio.to_thread(compare, deliveries, CONNECTIONS, rounds)
    ours, bare = found["crawlscope"], found["bare"]
    units = {"p50_ms": "ms", "p99_ms": "ms", "endpoint_cpu_ms": "ms of CPU", "postgres_cpu_ms": "ms of CPU"}
    names = ("– p50", "– p99", "– endpoint, a delivery", "– PostgreSQL, a delivery")
    what, against = f"deliveries on {CONNECTIONS} connections", f"bare endpoint {number(bare['per_second'])}"
    return [
        Row(PART, what, ours["per_second"], "/s", against, found["ratio"], MIN_RATIO),
        *(
            Row(PART, name, ours[key], unit, f"bare endpoint {number(bare[key])}", ours[key] / bare[key])
            for name, (key, unit) in zip(names, units.items(), strict=True)
        ),
        Row(PART, "SQL statements of a delivery, BEGIN and COMMIT included", found["statements"], ""),
    ]


def compare(deliveries: int, connections: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as name:
        folder = Path(name)
        pages, size = folder / "pages.json", (deliveries, connections)
        texts = [text for text in pages_of_site(1_000, SMALLEST) if len(text) <= LARGEST]
        pages.write_text(json.dumps(texts))
        data_dir, ports = folder / "data", [_free_port(), _free_port()]
        own = {"DATA_DIR": str(data_dir), "PORT": str(ports[0]), "API_SECRET": API_SECRET}
        environment = {f"{ENV_PREFIX}{name}": value for name, value in own.items()}
        with EmbeddedPostgres(data_dir) as server:
            asyncio.run(_migrate(server.url))
            cluster = Cluster(data_dir)
            bare = running(ports[1], "benchmarks.endpoint", "bare", server.url, str(ports[1]))
            with running(ports[0], "crawlscope", "serve", **environment) as ours, bare as peer:
                for endpoint in (ours, peer):
                    send_all(endpoint, cluster, pages, connections, connections)  # finds cold processes
                measured: dict[str, list[Round]] = {"crawlscope": [], "bare": []}
                for _ in range(rounds):
                    measured["crawlscope"].append(send_all(ours, cluster, pages, *size))
                    measured["bare"].append(send_all(peer, cluster, pages, *size))
                few = (min(deliveries, 500), connections)
                counted = asyncio.run(statements(ours, server.url, cluster, pages, *few))
    medians = {
        name: {field: statistics.median(getattr(each, field) for each in found) for field in asdict(found[0])}
        for name, found in measured.items()
    }
    return {
        "body_kb": statistics.median(len(text.encode()) for text in texts) / 1000,
        "connections": connections,
        **medians,
        "ratio": medians["crawlscope"]["per_second"] / medians["bare"]["per_second"],
        "statements": counted,
        "rounds": {name: [asdict(each) for each in found] for name, found in measured.items()},
    }


async def _migrate(url: str) -> None:
    database = Database.open(url)
    await schema.upgrade(database)
    await database.close()


def main() -> None:
    match sys.argv[1:]:
        case ["bare", url, port]:
            serve_bare(url, int(port))
            return
        case ["send", port, file, deliveries, connections]:
            pages = [json.dumps(text).encode() for text in json.loads(Path(file).read_text())]
            uvloop.run(send(int(port), pages, int(deliveries), int(connections)))
            return
    run_alone(measure, __doc__)


if __name__ == "__main__":
    main()
