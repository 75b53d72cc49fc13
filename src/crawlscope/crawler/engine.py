"""Crawlee, set up to disturb nothing else in a long-running service.

It gives what is hard about crawling: queue and concurrency. By default, it also keeps its queue on disk,
shares it between crawls, starts slowly, logs tables, takes over SIGINT, and swallows cancellation.
`PoliteClient` fetches pages: the address of a connection must be checked as it is made, and each host has a
pace of its own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from crawlee import ConcurrencySettings, Request
from crawlee.configuration import Configuration
from crawlee.crawlers import BasicCrawler, BasicCrawlingContext
from crawlee.events import LocalEventManager
from crawlee.statistics import Statistics
from crawlee.storage_clients import MemoryStorageClient
from crawlee.storages import RequestQueue

Visit = Callable[[str], Awaitable[None]]
GiveUp = Callable[[str, Exception], Awaitable[None]]

# A handler also waits for the delivery of its page, which outlasts restarts of the service.
_HANDLER_LIMIT = timedelta(days=1)
_silent = logging.getLogger(__name__)


class Engine(BasicCrawler[BasicCrawlingContext]):
    """Calls `visit` for each URL, and `give_up` if it raises."""

    def __init__(self, queue: RequestQueue, *, concurrency: int, visit: Visit) -> None:
        configuration = Configuration(internal_timeout=_HANDLER_LIMIT)
        # All places are open from the start, however busy the machine is: the caller chose their number.
        places = ConcurrencySettings(
            min_concurrency=concurrency, max_concurrency=concurrency, desired_concurrency=concurrency
        )

        async def handle(context: BasicCrawlingContext) -> None:
            await visit(context.request.url)

        super().__init__(
            configuration=configuration,
            event_manager=LocalEventManager.from_config(configuration),
            storage_client=MemoryStorageClient(),
            request_manager=queue,
            request_handler=handle,
            max_request_retries=0,
            use_session_pool=False,
            retry_on_blocked=False,
            concurrency_settings=places,
            request_handler_timeout=_HANDLER_LIMIT,
            statistics=Statistics.with_default_state(periodic_message_logger=_silent),
            configure_logging=False,
            _logger=_silent,
        )

    @classmethod
    async def create(cls, *, concurrency: int, visit: Visit, give_up: GiveUp) -> "Engine":
        for logger in (_silent, logging.getLogger("crawlee")):
            logger.setLevel(logging.CRITICAL + 1)
        # By hand: `RequestQueue.open` shares queues between crawls and never lets go of them.
        store = await MemoryStorageClient().create_rq_client()
        queue = RequestQueue(store, (await store.get_metadata()).id, None)
        engine = cls(queue, concurrency=concurrency, visit=visit)

        async def fail(context: BasicCrawlingContext, error: Exception) -> None:
            await give_up(context.request.url, error)

        engine.failed_request_handler(fail)
        return engine

    async def enqueue(self, urls: Iterable[str], *, first: bool = False) -> None:
        """At the end of the queue, or at its beginning."""
        # With a key of its own each URL stays one: Crawlee's would fold case, trailing slashes and the query.
        requests = [Request.from_url(url, unique_key=url) for url in urls]
        if requests:
            await self.add_requests(requests, forefront=first)

    async def crawl(self) -> None:
        """Runs until the queue is empty; cancelling it drops the pages in progress at once."""
        running = asyncio.create_task(self._run_crawler())
        try:
            await asyncio.shield(running)
        finally:
            if not running.done():
                with suppress(RuntimeError):  # the pool does not run yet, or no longer
                    await self._autoscaled_pool.abort()
                running.cancel()
                await asyncio.wait({running})
