"""Replays recorded crawls against a running service, at a given rate, and reports what became of each page.

    python -m benchmarks.replay [URL] [--rate PAGES_PER_SECOND] [--minutes M] [--seed N] [--json FILE]

Without URL: the service of this data folder. The secret is that of the settings (`CRAWLSCOPE_API_SECRET`).
Crawls begin at random moments and overlap; each sends its events at the times and in the order that were
recorded, bursts included. The same seed gives the same deliveries, so a second run with it sends duplicates.
Like Firecrawl, it waits 10 seconds for an answer. `--retry` repeats refused deliveries, as only the hosted
Firecrawl does. The exit code is 1 if a delivery or a page was lost.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom

import httpx2

from benchmarks.part import Row, as_json, table
from benchmarks.traffic import Delivery, Traffic, deliveries
from crawlscope.api.client import MAX_REPORT_PAGES, SECRET_HEADER, ServiceClient
from crawlscope.core import service_file
from crawlscope.core.errors import CrawlscopeError, NotFoundError, ServiceUnavailable
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import load_settings
from crawlscope.core.vocabulary import PageState
from crawlscope.insights.schemas import PageRow
from crawlscope.search.schemas import SearchFilters

PART = "replay"
ANSWER_SECONDS = 10.0
NO_ANSWER = 0
"""Counts as a status."""
POLL_SECONDS = 1.0
WAIT_SECONDS = 600.0
SEARCHED_PAGES = 20
SEARCHABLE = (PageState.INDEXED, PageState.UNCHANGED)


@dataclass(frozen=True)
class Replay:
    url: str
    secret: str
    traffic: Traffic
    retry_seconds: tuple[float, ...] = ()
    """The pauses before a refused delivery is sent again."""
    wait_seconds: float = WAIT_SECONDS
    """For the outcome of the last pages."""


@dataclass
class Replayed:
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """The latency of each delivery, from the time at which it was due, so that no wait is left out."""
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    """Deliveries that were refused to the last."""
    accepted: dict[tuple[str, str], bool] = field(default_factory=dict)
    """By crawl and source URL: whether the page has content."""
    pages: dict[tuple[str, str], PageRow] = field(default_factory=dict)
    """The service's rows of the pages of these crawls."""
    found: Counter[bool] = field(default_factory=Counter)
    """Whether search finds a page, of a sample of those that should be searchable."""

    @property
    def crawl_ids(self) -> list[str]:
        return list(dict.fromkeys(crawl_id for crawl_id, _ in self.accepted))

    @property
    def missing(self) -> list[str]:
        """Source URLs that were accepted and are unknown, unsettled, or not searchable despite content."""
        return [page[1] for page, has_content in self.accepted.items() if not self._has(page, has_content)]

    def _has(self, page: tuple[str, str], has_content: bool) -> bool:
        known = self.pages.get(page)
        return known is not None and (known.state in SEARCHABLE if has_content else known.state.settled)

    @property
    def lags_seconds(self) -> list[float]:
        """The time of each searchable page from its delivery until search finds it."""
        return [
            (page.settled_at - page.queued_at).total_seconds()
            for page in self.pages.values()
            if page.state in SEARCHABLE and page.settled_at and page.queued_at
        ]


async def replay(given: Replay) -> Replayed:
    """Sends all deliveries, waits for the outcome of each page, and asks the service what it knows."""
    replayed = Replayed()
    headers = {SECRET_HEADER: given.secret, "Content-Type": "application/json"}
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=given.url, headers=headers, limits=limits, timeout=ANSWER_SECONDS, trust_env=False
    ) as http:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as sending:
            for delivery in deliveries(given.traffic):
                await asyncio.sleep(began + delivery.due - time.perf_counter())
                sending.create_task(_send(http, delivery, began, given.retry_seconds, replayed))
        replayed.seconds = time.perf_counter() - began
    client = ServiceClient(lambda: given.url, {SECRET_HEADER: given.secret})
    try:
        await _await_outcomes(client, replayed.crawl_ids, time.monotonic() + given.wait_seconds)
        await _read_pages(client, replayed)
        await _search_sample(client, replayed, Random(given.traffic.seed))
    finally:
        await client.aclose()
    return replayed


async def _send(
    http: httpx2.AsyncClient, delivery: Delivery, began: float, retry: Sequence[float], replayed: Replayed
) -> None:
    for pause in (*retry, None):
        try:
            status = (await http.post(service_file.WEBHOOK_PATH, content=delivery.body)).status_code
        except httpx2.HTTPError:
            status = NO_ANSWER
        replayed.statuses[status] += 1
        if _is_success(status) or pause is None:
            break
        await asyncio.sleep(pause)
    replayed.latencies_ms.append((time.perf_counter() - began - delivery.due) * 1000)
    if not _is_success(status):
        replayed.lost += 1
    elif delivery.page is not None:
        replayed.accepted[delivery.crawl_id, delivery.page] = delivery.version is not None


def _is_success(status: int) -> bool:
    return status // 100 == 2


async def _await_outcomes(client: ServiceClient, crawl_ids: Sequence[str], deadline: float) -> None:
    for crawl_id in crawl_ids:
        while time.monotonic() < deadline:
            try:
                if not (await client.crawl(crawl_id)).pages_pending:
                    break
            except NotFoundError:
                break  # its pages are counted as missing
            except ServiceUnavailable:
                pass
            await asyncio.sleep(POLL_SECONDS)


async def _read_pages(client: ServiceClient, replayed: Replayed) -> None:
    for crawl_id in replayed.crawl_ids:
        read, total = 0, 1
        while read < total:
            answer = await client.pages(crawl_id, sort="url", limit=MAX_REPORT_PAGES, offset=read)
            replayed.pages |= {(crawl_id, page.url): page for page in answer.pages}
            read, total = read + MAX_REPORT_PAGES, answer.total


async def _search_sample(client: ServiceClient, replayed: Replayed, random: Random) -> None:
    urls = sorted({page.final_url for page in replayed.pages.values() if page.state in SEARCHABLE})
    for url in random.sample(urls, min(SEARCHED_PAGES, len(urls))):
        found = await client.search(url, mode="keyword", filters=SearchFilters(url_prefix=url))
        replayed.found[url in {result.url for result in found.results}] += 1


def rows(replayed: Replayed, traffic: Traffic) -> list[Row]:
    latencies, lags = sorted(replayed.latencies_ms), sorted(replayed.lags_seconds)
    refused = {status: count for status, count in replayed.statuses.items() if not _is_success(status)}
    states = Counter(page.state.value for page in replayed.pages.values())
    unfound = replayed.found[False]
    sent = f"{len(latencies)} of {len(replayed.crawl_ids)} crawls, seed {traffic.seed}"
    return [
        Row(PART, "deliveries", len(latencies) / replayed.seconds, "/s", sent),
        *(Row(PART, f"– {name}", _at(latencies, share), "ms") for name, share in SHARES.items()),
        Row(PART, "answers other than 2xx", sum(refused.values()), "", _counted(refused)),
        Row(PART, "deliveries lost", replayed.lost, "", at_most=0),
        *(Row(PART, f"searchable after, {name}", _at(lags, share), "s") for name, share in SHARES.items()),
        Row(PART, "pages missing", len(replayed.missing), "", f"of {_counted(states)}", at_most=0),
        Row(PART, "not found by search", unfound, "", f"of {replayed.found.total()}", at_most=0),
    ]


SHARES = {"p50": 0.5, "p99": 0.99, "slowest": 1.0}


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _counted(counts: dict[int, int] | dict[str, int]) -> str:
    return ", ".join(f"{count} {name or 'without answer'}" for name, count in counts.items())


def main() -> None:
    given = _parser().parse_args()
    settings = load_settings()
    if given.url is None and (running := service_file.read(settings.data_dir)) is not None:
        given.url = running.url
    if given.url is None:
        sys.exit("No service runs here. Start one with `crawlscope up`, or give its URL.")
    traffic = Traffic(given.seed, given.rate, 60 * given.minutes, given.sites, given.changed, given.repeated)
    try:
        replayed = asyncio.run(
            replay(Replay(given.url, api_secret(settings), traffic, tuple(given.retry), given.wait))
        )
    except CrawlscopeError as error:
        sys.exit(str(error))
    measured = rows(replayed, traffic)
    print(table(measured))
    if given.json:
        given.json.write_text(json.dumps(as_json(measured), indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(row.met is False for row in measured))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Traffic(seed=0)
    parser.add_argument("url", nargs="?", help="of the service, for example http://127.0.0.1:8108")
    parser.add_argument("--rate", type=float, default=usual.pages_per_second, help="pages a second")
    parser.add_argument("--minutes", type=float, default=usual.seconds / 60)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--sites", type=int, default=usual.sites, help="different websites")
    parser.add_argument("--changed", type=float, default=usual.changed, help="share of changed pages")
    parser.add_argument("--repeated", type=float, default=usual.repeated, help="share sent twice")
    parser.add_argument("--retry", type=float, nargs="+", default=(), metavar="SECONDS", help="pauses")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds for the last outcomes")
    parser.add_argument("--json", type=Path, help="also write all rows to this file")
    return parser


if __name__ == "__main__":
    main()
