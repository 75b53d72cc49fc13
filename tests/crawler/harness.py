"""What every crawl test needs: the events of one crawl, sorted by what a reader asks of them."""

from dataclasses import dataclass, field
from typing import Any

from crawlscope.crawler.crawl import CrawlRequest, CrawlSummary, OnProgress, ShouldStop, run_crawl

Event = dict[str, Any]


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
        return {path: event["error"] for path, event in self.pages.items() if not event["success"]}

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
    **options: Any,
) -> Crawled:
    crawled = Crawled()
    request = CrawlRequest(crawl_id, url, allow_private=allow_private, **options)
    crawled.summary = await run_crawl(request, crawled.deliver, on_progress, should_stop)
    return crawled
