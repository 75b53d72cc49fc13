"""Deliveries of a crawl from a process of its own, over connections that stay open, at little cost."""

import asyncio
import itertools
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from benchmarks.pages import MAX_PAGE_CHARACTERS, MIN_PAGE_CHARACTERS, Site
from crawlscope.core.service_file import WEBHOOK_PATH

Given = TypeVar("Given")
Result = TypeVar("Result")

CONNECTIONS = 32
ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Load:
    """Pages `first` to `first + pages` of a website, delivered as pages of one crawl."""

    crawl_id: str
    pages: int
    first: int = 0
    host: str = ""
    """The crawl's own website by default."""
    connections: int = CONNECTIONS
    per_second: float | None = None
    """Default: each connection sends as soon as it has its answer."""
    seconds: float = float("inf")
    """After these no further page is sent."""
    ends: bool = True
    smallest: int = MIN_PAGE_CHARACTERS
    largest: int = MAX_PAGE_CHARACTERS

    @property
    def website(self) -> str:
        return self.host or f"{self.crawl_id}.example"


@dataclass
class Delivered:
    began: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    """At a given rate from the time at which the delivery was due, so that no wait is left out."""

    @property
    def count(self) -> int:
        return len(self.latencies_ms)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def deliver(url: str, secret: str, load: Load) -> Delivered:
    return await in_process(_deliver, (url, secret, load))


@dataclass(frozen=True)
class Searches:
    queries: tuple[str, ...]
    seconds: float
    connections: int = 8


async def search(url: str, secret: str, searches: Searches) -> Delivered:
    """Each connection asks the queries in turn until the time is over."""
    return await in_process(_search, (url, secret, searches))


async def in_process(run: Callable[[Given], Result], given: Given) -> Result:
    """In a process of its own, whose work delays nobody in this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, run, given)


def _deliver(given: tuple[str, str, Load]) -> Delivered:
    return asyncio.run(send_all(*given))


async def send_all(url: str, secret: str, load: Load) -> Delivered:
    """In this process."""
    site = Site(load.website, load.smallest, load.largest)
    numbers = iter(range(load.first, load.first + load.pages))
    connections = [await Connection.open(url, secret) for _ in range(load.connections)]
    delivered = Delivered(began=time.time())
    began = time.perf_counter()

    async def send(connection: Connection) -> None:
        for number in numbers:
            body = site.page_event(load.crawl_id, number)
            due = time.perf_counter()
            if load.per_second is not None:
                due = began + (number - load.first) / load.per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() - began > load.seconds:
                return
            status, _ = await connection.post(WEBHOOK_PATH, body)
            delivered.latencies_ms.append((time.perf_counter() - due) * 1000)
            delivered.statuses[status] += 1

    await asyncio.gather(*map(send, connections))
    delivered.seconds = time.perf_counter() - began
    if load.ends:
        await connections[0].post(WEBHOOK_PATH, site.end_event(load.crawl_id))
    for connection in connections:
        connection.close()
    return delivered


def _search(given: tuple[str, str, Searches]) -> Delivered:
    return asyncio.run(_search_all(*given))


async def _search_all(url: str, secret: str, searches: Searches) -> Delivered:
    connections = [await Connection.open(url, secret) for _ in range(searches.connections)]
    answered = Delivered(began=time.time())
    began = time.perf_counter()
    queries = itertools.cycle(searches.queries)

    async def ask(connection: Connection) -> None:
        while time.perf_counter() - began < searches.seconds:
            asked = time.perf_counter()
            status, _ = await connection.post("/api/search", json.dumps({"query": next(queries)}).encode())
            answered.latencies_ms.append((time.perf_counter() - asked) * 1000)
            answered.statuses[status] += 1

    await asyncio.gather(*map(ask, connections))
    answered.seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return answered


class Connection:
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self._reader, self._writer, self._head = reader, writer, head

    @classmethod
    async def open(cls, url: str, secret: str) -> "Connection":
        parts = urlsplit(url)
        head = f"Host: {parts.netloc}\r\nX-API-Secret: {secret}\r\nContent-Type: application/json\r\n"
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), head)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
            return int(answer.split(None, 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()
