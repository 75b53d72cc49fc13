"""The harness of crawl tests: the events of one crawl, sorted by kind."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from crawlscope.crawler.crawl import CrawlPlan, CrawlSummary, OnProgress, ShouldStop, run_crawl
from crawlscope.crawler.pace import Clock

Event = dict[str, Any]


class FastClock(Clock):
    """Every wait ends at once."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def wait(self, seconds: float, stopping: asyncio.Event) -> None:
        self.time += seconds
        await asyncio.sleep(0)


@dataclass
class Crawled:
    events: list[Event] = field(default_factory=list)
    summary: CrawlSummary | None = None

    async def deliver(self, event: Event) -> None:
        self.events.append(event)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def pages(self) -> dict[str, Event]:
        """By path with query; fails the test where one URL was delivered twice."""
        found: dict[str, Event] = {}
        for event in self.events:
            if event["type"] == "crawl.page":
                path = "/" + event["data"][0]["metadata"]["sourceURL"].split("/", 3)[3]
                assert path not in found, f"{path} was delivered twice"
                found[path] = event
        return found

    @property
    def failures(self) -> dict[str, str]:
        """The reason for each page that failed, by path."""
        failed = {path: event["error"] for path, event in self.pages.items() if not event["success"]}
        return {path: error if isinstance(error, str) else error["message"] for path, error in failed.items()}

    def document(self, path: str) -> Event:
        document: Event = self.pages[path]["data"][0]
        return document

    def metadata(self, path: str) -> Event:
        metadata: Event = self.document(path)["metadata"]
        return metadata


async def crawl(
    url: str,
    *,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    crawl_id: str = "crawl-1",
    allow_private: bool = True,
    clock: Clock | None = None,
    **options: Any,
) -> Crawled:
    crawled = Crawled()
    request = CrawlPlan(crawl_id, url, allow_private=allow_private, **options)
    clock = clock or FastClock()
    crawled.summary = await run_crawl(request, crawled.deliver, on_progress, should_stop, clock)
    return crawled
