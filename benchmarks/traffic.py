"""Deliveries as real crawls send them: recorded ones, again and again, with pages as large as recorded ones.

A recording gives the order of the events, their times, their envelopes and which pages fail. Each website
has one recording and is crawled repeatedly: some of its pages have changed since, most have not.
"""

import gzip
import heapq
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from benchmarks.pages import pages_of_site

RECORDINGS = Path(__file__).parents[1] / "tests" / "recordings"
RECORDED = (
    *("v1-crawl-docs", "v2-batch-200", "b-v2-crawl-flaky", "b-v2-crawl-cancel", "b-v2-batch-append"),
    *("v2-batch-slowlink", "b-v2-crawl-events-page-failed", "b-v1-crawl-nohook", "b-v1-crawl-start404"),
)
MEDIAN_BYTES, P95_BYTES, MAX_BYTES = 23_000, 147_000, 2_800_000
"""The sizes of a page's Markdown, over all pages that were recorded."""
P95_DEVIATIONS = 1.645
REPEATED_AFTER_SECONDS = (0.2, 10.0)
REACHED_STATUS = 400
"""Pages with a status below it have content."""


@dataclass(frozen=True)
class Traffic:
    seed: int
    pages_per_second: float = 5.0
    seconds: float = 600.0
    """No crawl begins after these; crawls in progress go on to their end."""
    sites: int = 18
    changed: float = 0.3
    """The share of a site's pages that have changed when it is crawled again."""
    repeated: float = 0.02
    """The share of deliveries that arrive twice."""


@dataclass(frozen=True)
class Delivery:
    due: float
    """Seconds since the traffic began."""
    event: dict[str, Any]
    """For a page with content: the event without it."""
    page: str | None = None
    """The source URL of the page that it brings."""
    version: int | None = None
    """The version of the page's content, if it has any."""

    @property
    def crawl_id(self) -> str:
        return str(self.event["id"])

    @property
    def body(self) -> bytes:
        """Made when it is asked for, so that no traffic waits in memory."""
        if self.page is None or self.version is None:
            return json.dumps(self.event).encode()
        document = self.event["data"][0] | {"markdown": markdown(self.page, self.version)}
        return json.dumps(self.event | {"data": [document]}).encode()


def deliveries(traffic: Traffic) -> Iterator[Delivery]:
    """In the order in which they are due; the same for the same traffic. Crawls begin at random moments."""
    random = Random(traffic.seed)
    versions: defaultdict[str, int] = defaultdict(int)
    pages_of_a_crawl = sum(map(pages_of, RECORDED)) / len(RECORDED)
    crawls_per_second = traffic.pages_per_second / pages_of_a_crawl
    waiting: list[tuple[float, int, Delivery]] = []
    sent = 0
    for crawl, begins in enumerate(_beginnings(random, crawls_per_second, traffic.seconds)):
        while waiting and waiting[0][0] <= begins:
            yield heapq.heappop(waiting)[2]
        for delivery in _deliveries_of_crawl(traffic, random, crawl, begins, versions):
            heapq.heappush(waiting, (delivery.due, sent := sent + 1, delivery))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _beginnings(random: Random, per_second: float, seconds: float) -> Iterator[float]:
    at = 0.0
    while at < seconds:
        yield at
        at += random.expovariate(per_second)


def _deliveries_of_crawl(
    traffic: Traffic, random: Random, crawl: int, begins: float, versions: defaultdict[str, int]
) -> Iterator[Delivery]:
    site = random.randrange(traffic.sites)
    host = f"site-{site}-{traffic.seed}.example"
    crawl_id = str(uuid5(NAMESPACE_URL, f"crawl {crawl} of traffic {traffic.seed}"))
    for number, recorded in enumerate(events_of(RECORDED[site % len(RECORDED)])):
        event = json.loads(recorded.event)
        event["id"] = crawl_id
        if "webhookId" in event:
            event["webhookId"] = str(uuid5(NAMESPACE_URL, f"{crawl_id} {number}"))
        page = _move_page(event, host)
        delivery = Delivery(begins + recorded.seconds, event, page)
        if page is not None and recorded.has_content:
            versions[page] += random.random() < traffic.changed
            delivery = replace(delivery, version=versions[page])
        yield delivery
        if random.random() < traffic.repeated:
            yield replace(delivery, due=delivery.due + random.uniform(*REPEATED_AFTER_SECONDS))


def _move_page(event: dict[str, Any], host: str) -> str | None:
    """Gives the event's page an address at this host; returns its source URL."""
    if not event["data"]:
        return None
    metadata = event["data"][0]["metadata"]
    for name in ("sourceURL", "url"):
        if name in metadata:
            metadata[name] = urlsplit(metadata[name])._replace(scheme="https", netloc=host).geturl()
    if "scrapeId" in metadata:
        metadata["scrapeId"] = str(uuid5(NAMESPACE_URL, f"{event['id']} {metadata['scrapeId']}"))
    source: str = metadata["sourceURL"]
    return source


def markdown(url: str, version: int) -> str:
    """A heading of its own, and as much real text as a page of this URL usually has."""
    random = Random(f"{url} {version}")
    characters = page_characters(Random(url))
    texts = pages_of_site()
    parts = [f"# {url}, version {version}\n\n"]
    while (missing := characters - sum(map(len, parts))) > 0:
        parts.append(random.choice(texts)[:missing])
    return "".join(parts)


def page_characters(random: Random) -> int:
    """Log-normal, as the sizes of recorded pages."""
    deviation = math.log(P95_BYTES / MEDIAN_BYTES) / P95_DEVIATIONS
    return min(MAX_BYTES, int(random.lognormvariate(math.log(MEDIAN_BYTES), deviation)))


@dataclass(frozen=True)
class Recorded:
    seconds: float
    """Since the first event of its crawl."""
    event: str
    """As JSON, without the text of a page that gets another one."""
    has_content: bool
    """Whether it brings a page with text and without an HTTP error."""


@cache
def events_of(name: str) -> list[Recorded]:
    """The events of a recording in the order of their arrival."""
    lines = gzip.decompress((RECORDINGS / f"{name}.jsonl.gz").read_bytes()).splitlines()
    recorded = [json.loads(line) for line in lines]
    return [_recorded(each["t"] - recorded[0]["t"], json.loads(each["body"])) for each in recorded]


def _recorded(seconds: float, event: dict[str, Any]) -> Recorded:
    has_content = False
    for document in event["data"]:
        if document.get("markdown") and document["metadata"].get("statusCode", 0) < REACHED_STATUS:
            del document["markdown"]
            has_content = True
    return Recorded(seconds, json.dumps(event), has_content)


def pages_of(name: str) -> int:
    return sum(bool(json.loads(recorded.event)["data"]) for recorded in events_of(name))
