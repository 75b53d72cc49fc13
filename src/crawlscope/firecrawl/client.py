"""Firecrawl's API: starts crawls and batch scrapes there, and reads their state, results and errors."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from crawlscope.core.closing import ClosedAtEnd
from crawlscope.core.errors import (
    FirecrawlJobUnknown,
    FirecrawlRefused,
    FirecrawlUnavailable,
    SettingsError,
)
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import Settings
from crawlscope.firecrawl.listing import Listing
from crawlscope.firecrawl.schemas import (
    ActiveCrawls,
    BatchStarted,
    CrawlStarted,
    JobErrors,
    JobKind,
    JobStatus,
    StatusPage,
)
from crawlscope.firecrawl.transport import EndpointMissing, FirecrawlServer

PATIENCE_SECONDS = 30.0
_ID = re.compile(r"[\w-]{1,255}", re.ASCII)

Shape = TypeVar("Shape", bound=BaseModel)
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Webhook:
    """The address for Firecrawl's deliveries, their headers, and the metadata that its events echo."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[str] | None = None
    """The part after the dot of the event types to send, such as `page`; None for all."""

    def as_json(self) -> dict[str, Any]:
        given = {"url": self.url, "headers": dict(self.headers), "metadata": dict(self.metadata)}
        return given if self.events is None else {**given, "events": list(self.events)}


class FirecrawlClient(ClosedAtEnd):
    """Talks to the Firecrawl at `url`, hosted or self-hosted, by its API v2, or v1 if it has no other.

    Without a `kind`, a job is looked for among crawls, then among batches. Every method raises
    `FirecrawlUnavailable`, each request after `patience_seconds` at the latest, or `FirecrawlRefused`;
    methods that take a job's id also raise `FirecrawlJobUnknown`.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        hidden: Collection[str] = (),
    ) -> None:
        """`hidden`: secrets that requests carry, which no error may repeat; the key never is."""
        self._server = FirecrawlServer(url, api_key, patience_seconds, hidden)
        self._has_v2 = True

    async def aclose(self) -> None:
        await self._server.aclose()

    @property
    def name(self) -> str:
        """With its address, without credentials."""
        return self._server.name

    async def start_crawl(
        self,
        url: str,
        *,
        limit: int | None = None,
        scrape_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        webhook: Webhook | None = None,
    ) -> str:
        """Returns the crawl's id.

        `scrape_options` and `options` (such as `crawlEntireDomain`) go as they are, in the words of the
        server's API version. `FirecrawlUnavailable.maybe_done`: the crawl may have been started all the same.
        """
        body = {
            **(options or {}),
            "url": url,
            "limit": limit,
            "scrapeOptions": dict(scrape_options) if scrape_options else None,
            "webhook": webhook and webhook.as_json(),
        }
        return (await self._start(CrawlStarted, JobKind.CRAWL, body)).id

    async def start_batch(
        self,
        urls: Sequence[str],
        *,
        scrape_options: Mapping[str, Any] | None = None,
        webhook: Webhook | None = None,
        append_to: str | None = None,
    ) -> BatchStarted:
        """Scrapes just these URLs, in a batch of their own or, with `append_to`, in one that exists."""
        body = {
            **(scrape_options or {}),
            "urls": list(urls),
            "ignoreInvalidURLs": True,
            "appendToId": append_to,
            "webhook": webhook and webhook.as_json(),
        }
        return await self._start(BatchStarted, JobKind.BATCH_SCRAPE, body)

    async def cancel(self, job_id: str, kind: JobKind | None = None) -> None:
        """Pages in progress are still delivered. Newer servers refuse (409) if the job has ended."""
        await self._find(kind, lambda kind: self._ask("DELETE", _path(kind, job_id)))

    async def status(self, job_id: str, kind: JobKind | None = None) -> JobStatus:
        return await self._find(kind, partial(self._status_page, job_id, "limit=1"))

    def documents(self, job_id: str, kind: JobKind | None = None) -> Listing:
        """The documents so far; the requests are made, and fail, while it is iterated over."""
        return Listing(lambda query: self._find(kind, partial(self._status_page, job_id, query)))

    async def errors(self, job_id: str, kind: JobKind | None = None) -> JobErrors:
        """Empty where the server is too old to say."""
        return await self._find(kind, partial(self._errors, job_id))

    async def active(self) -> int | None:
        """How many crawls run there now; None where the server is too old to say."""
        try:
            answer = await self._ask("GET", f"{JobKind.CRAWL.path}/active")
        except FirecrawlJobUnknown:  # it took the word for a crawl's id
            return None
        return len(self._read(ActiveCrawls, answer).crawls)

    async def _start(self, shape: type[Shape], kind: JobKind, body: dict[str, Any]) -> Shape:
        given = {name: value for name, value in body.items() if value is not None}
        return self._read(shape, await self._ask("POST", kind.path, given))

    async def _status_page(self, job_id: str, query: str, kind: JobKind) -> StatusPage:
        path = _path(kind, job_id)
        return self._read(StatusPage, await self._ask("GET", f"{path}?{query}" if query else path))

    async def _errors(self, job_id: str, kind: JobKind) -> JobErrors:
        path = f"{_path(kind, job_id)}/errors"
        for version in ("v2", "v1") if self._has_v2 else ("v1",):
            try:
                return self._read(JobErrors, await self._server.ask("GET", f"/{version}/{path}"))
            except EndpointMissing:
                continue
        return JobErrors(errors=[])

    async def _find(self, kind: JobKind | None, ask: Callable[[JobKind], Awaitable[Outcome]]) -> Outcome:
        if kind is not None:
            return await ask(kind)
        try:
            return await ask(JobKind.CRAWL)
        except FirecrawlJobUnknown as unknown:
            if unknown.expired:
                raise
        return await ask(JobKind.BATCH_SCRAPE)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """For endpoints that every server has, in v2 or v1."""
        if self._has_v2:
            try:
                return await self._server.ask(method, f"/v2/{path}", body)
            except EndpointMissing:
                pass
        try:
            answer = await self._server.ask(method, f"/v1/{path}", body)
        except EndpointMissing:
            raise FirecrawlRefused(
                f"{self._server.name} has neither /v2/{path} nor /v1/{path}. Check CRAWLSCOPE_FIRECRAWL_URL.",
                404,
            ) from None
        self._has_v2 = False
        return answer

    def _read(self, shape: type[Shape], answer: dict[str, Any]) -> Shape:
        try:
            return shape.model_validate(answer)
        except ValidationError as error:
            issue = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in issue["loc"])
            raise FirecrawlUnavailable(
                f"{self._server.name} answered JSON of another shape: {where}: {issue['msg']}.",
                maybe_done=True,
            ) from None


def _path(kind: JobKind, job_id: str) -> str:
    if not _ID.fullmatch(job_id):
        raise FirecrawlJobUnknown("Firecrawl knows no such crawl: that is no id of Firecrawl's")
    return f"{kind.path}/{job_id}"


def firecrawl_client(settings: Settings) -> FirecrawlClient:
    """Raises `SettingsError` if no Firecrawl is set. Reads the certificates: 0.1 to 0.5 s."""
    if settings.firecrawl_url is None:
        raise SettingsError("no Firecrawl is known: set CRAWLSCOPE_FIRECRAWL_URL to its address")
    key = settings.firecrawl_api_key
    return FirecrawlClient(
        settings.firecrawl_url, key.get_secret_value() if key else None, hidden=[api_secret(settings)]
    )


class SharedFirecrawl:
    """One client for all of a process, opened in a thread when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._client: FirecrawlClient | None = None

    async def client(self) -> FirecrawlClient:
        """Raises `SettingsError` if no Firecrawl is set, or if its settings cannot work."""
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(firecrawl_client, self._settings)
            return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
