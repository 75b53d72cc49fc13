"""The client of a running service over HTTP: of programs (`crawlscope.connect`), the CLI and MCP."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx2
from pydantic import BaseModel, ValidationError

from crawlscope.api.keys.schemas import KeyList, NewKey
from crawlscope.changes.schemas import CrawlWatched
from crawlscope.core import service_file
from crawlscope.core.errors import CrawlscopeError, NotFoundError, ServiceUnavailable, UsageError
from crawlscope.core.secrets import api_secret, local_token
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import ChangeKind, Engine, ExportFormat, PageState
from crawlscope.crawls.schemas import (
    GOES_ON_HEADER,
    CrawlCancelled,
    CrawlDeleted,
    CrawlReconciled,
    CrawlRecounted,
    CrawlStarted,
    PagesQueued,
)
from crawlscope.indexing.schemas import DocumentIndexed
from crawlscope.insights.progress import is_settled, poll_interval
from crawlscope.insights.schemas import (
    CrawlComparison,
    CrawlListResponse,
    CrawlMetricsResponse,
    DiagnosisResponse,
    ExportedPage,
    PageChangesResponse,
    PageListResponse,
    ReindexResponse,
    StatsResponse,
)
from crawlscope.search.schemas import Mode, SearchFilters, SearchResponse
from crawlscope.webhooks.schemas import DeliveriesReplayed

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Answer = TypeVar("Answer", bound=BaseModel)

ANSWER_SECONDS = 30.0
FIRECRAWL_SECONDS = 120.0
"""Longer than the service waits for Firecrawl, so that its answer gives the reason."""
INDEX_SECONDS = 600.0
"""The service answers when the document is searchable; one of several megabytes takes minutes."""
RECONCILE_SECONDS = 600.0
"""The service answers after it has fetched all missing pages."""
WATCH_SECONDS = 600.0
"""The service answers after it has created all watches, one request at a time."""
FEED_SECONDS = 10.0
"""The time limit for the first event."""
EXPORT_SECONDS = 120.0
"""Between two pieces of an export."""
PAGES_HEADER = "X-Crawlscope-Pages"
"""The number of pages in an export."""
SECRET_HEADER = "X-API-Secret"  # noqa: S105 - the header's name


MAX_REPORT_PAGES = 1_000
"""The largest number of pages in one answer."""


@dataclass(frozen=True)
class CrawlReport:
    """The data of a crawl's profile. The lists of a large crawl do not have all pages."""

    crawl: CrawlMetricsResponse
    slowest: PageListResponse
    """The slowest pages first."""
    failed: PageListResponse
    diagnosis: DiagnosisResponse
    language_notice: str | None = None
    """The notice that the embedding model does not read the languages of many pages, with the remedy."""


class ComparisonReport(CrawlComparison):
    """Two crawls side by side, with pages that differ."""

    page_changes: PageChangesResponse


class ServiceClient:
    """Everything that a program does with a service. `crawlscope.connect` opens one.

    Looks up the service's address for each request, so that the service may restart at another one.
    Every method raises `ServiceUnavailable` while no service answers, `NotFoundError` for an unknown crawl,
    page or document, and `UsageError` for a request that the service refuses.
    """

    def __init__(
        self,
        locate: Callable[[], str | None],
        headers: Mapping[str, str],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._locate = locate
        encrypted = (locate() or "").startswith("https:")
        self._http = httpx2.AsyncClient(
            headers=dict(headers),
            timeout=ANSWER_SECONDS,
            trust_env=False,
            transport=transport,
            # Without TLS no certificates are read, which takes longer than most requests.
            verify=ssl.create_default_context() if encrypted else False,
        )

    @classmethod
    def of(cls, settings: Settings, *, local: bool = True) -> Self:
        """A client of the service of this data folder. `local` requests carry the token that only a user of
        this machine can read, and may crawl private addresses."""

        def locate() -> str | None:
            service = service_file.read(settings.data_dir)
            return service.url if service else None

        headers = {SECRET_HEADER: api_secret(settings)}
        if local:
            headers["X-Crawlscope-Local"] = local_token(settings)
        return cls(locate, headers)

    @classmethod
    def at(cls, url: str, secret: str) -> Self:
        """A client of the service at this URL, with the API secret or a key."""
        address = url.rstrip("/")
        return cls(lambda: address, {SECRET_HEADER: secret})

    @classmethod
    def within(cls, app: "ASGIApp", secret: str) -> Self:
        """A client of the service in this process, without a connection."""
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        return cls(lambda: "http://crawlscope", {SECRET_HEADER: secret}, transport)

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def url(self) -> str | None:
        """None while no service runs."""
        return self._locate()

    async def require_ready(self) -> None:
        """Raises `ServiceUnavailable` while the service cannot commit what it is sent."""
        try:
            await self._ask("GET", "/readyz")
        except NotFoundError as error:
            raise UsageError(f"no Crawlscope answers at {self.url}: check the URL") from error

    async def is_ready(self) -> bool:
        try:
            await self.require_ready()
        except ServiceUnavailable:
            return False
        return True

    async def health(self) -> dict[str, Any]:
        answer = await self._ask("GET", "/health")
        try:
            health: dict[str, Any] = dict(answer.json())
        except (TypeError, ValueError) as error:
            raise _foreign(answer) from error
        return health

    async def index(
        self,
        url: str,
        markdown: str,
        *,
        title: str | None = None,
        language: str | None = None,
        crawl_id: str | None = None,
    ) -> DocumentIndexed:
        """Indexes a document that no crawler delivers. It is searchable when this returns.

        `url` identifies it: another one with this URL is replaced. `crawl_id` names the import that it is
        found by. Raises `UsageError` for a document that cannot be indexed.
        """
        document = {"url": url, "markdown": markdown, "title": title, "language": language}
        given = {**document, "crawl_id": crawl_id}
        answer = await self._ask("POST", "/api/documents", json=given, timeout=INDEX_SECONDS)
        return _parsed(DocumentIndexed, answer)

    async def remove(self, url: str) -> None:
        """Removes a document from the index, even if a crawl found it."""
        await self._ask("DELETE", "/api/documents", params={"url": url})

    async def require_live_feed(self) -> None:
        """Returns when the feed of all crawls has sent something, which it does at once. Raises
        `ServiceUnavailable` if nothing of it arrives.
        """
        with self._explained() as url:
            async with self._http.stream("GET", f"{url}/api/metrics/events", timeout=FEED_SECONDS) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                await anext(answer.aiter_bytes())

    async def start_crawl(
        self,
        url: str,
        limit: int | None = None,
        engine: str | None = None,
        scrape_options: Mapping[str, Any] | None = None,
        crawl_options: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns the new crawl's id. Only Firecrawl takes the options."""
        options = {"scrape_options": scrape_options, "crawl_options": crawl_options}
        return (await self._start(url=url, limit=limit, engine=engine, **options)).crawl_id

    async def start_batch(
        self, urls: Sequence[str], scrape_options: Mapping[str, Any] | None = None
    ) -> CrawlStarted:
        """Starts a batch scrape of these URLs at Firecrawl."""
        return await self._start(urls=list(urls), engine=Engine.FIRECRAWL, scrape_options=scrape_options)

    async def cancel(self, crawl_id: str) -> CrawlCancelled:
        path = f"/api/crawls/{_segment(crawl_id)}/cancel"
        answer = await self._ask("POST", path, timeout=FIRECRAWL_SECONDS)
        return _parsed(CrawlCancelled, answer)

    async def retry(
        self, crawl_id: str, urls: Sequence[str] | None = None, *, rescrape: bool = False
    ) -> PagesQueued:
        """Retries `urls`, or all failed pages. `rescrape` fetches those again that have no content."""
        which: dict[str, Any] = {"urls": list(urls)} if urls else {}
        if rescrape:
            which["rescrape"] = True
        path = f"/api/crawls/{_segment(crawl_id)}/retry"
        answer = await self._ask("POST", path, json=which, timeout=FIRECRAWL_SECONDS)
        return _parsed(PagesQueued, answer)

    async def delete(self, crawl_id: str) -> CrawlDeleted:
        answer = await self._ask("DELETE", f"/api/crawls/{_segment(crawl_id)}", timeout=FIRECRAWL_SECONDS)
        return CrawlDeleted(crawl_id=crawl_id, goes_on=answer.headers.get(GOES_ON_HEADER))

    async def reconcile(self, crawl_id: str) -> CrawlReconciled:
        path = f"/api/crawls/{_segment(crawl_id)}/reconcile"
        answer = await self._ask("POST", path, timeout=RECONCILE_SECONDS)
        return _parsed(CrawlReconciled, answer)

    async def watch(self, crawl_id: str, limit: int | None = None) -> CrawlWatched:
        """Makes changedetection.io watch the pages of the crawl."""
        path = f"/api/crawls/{_segment(crawl_id)}/watches"
        which = {} if limit is None else {"limit": limit}
        answer = await self._ask("POST", path, json=which, timeout=WATCH_SECONDS)
        return _parsed(CrawlWatched, answer)

    async def recount(self, crawl_id: str) -> CrawlRecounted:
        answer = await self._ask("POST", f"/api/crawls/{_segment(crawl_id)}/recount")
        return _parsed(CrawlRecounted, answer)

    async def replay(self, **which: Any) -> DeliveriesReplayed:
        """`which` are the fields of `ReplayDeliveries`, as JSON; without any, all are reprocessed."""
        answer = await self._ask("POST", "/api/deliveries/replay", json=which, timeout=RECONCILE_SECONDS)
        return _parsed(DeliveriesReplayed, answer)

    async def crawl(self, crawl_id: str) -> CrawlMetricsResponse:
        return await self._read(CrawlMetricsResponse, f"/api/metrics/crawls/{_segment(crawl_id)}")

    async def follow(self, crawl_id: str) -> AsyncGenerator[CrawlMetricsResponse, None]:
        """Yields the crawl repeatedly, until waiting brings nothing more: usually it is sealed then."""
        while True:
            asked = time.monotonic()
            crawl = await self.crawl(crawl_id)
            answered_seconds = time.monotonic() - asked
            yield crawl
            if is_settled(crawl):
                return
            await asyncio.sleep(poll_interval(answered_seconds))

    async def wait(self, crawl_id: str) -> CrawlMetricsResponse:
        """Returns the crawl when all its pages are searchable or have failed."""
        async for crawl in self.follow(crawl_id):
            last = crawl
        return last

    async def crawls(self, limit: int = 50, **query: Any) -> CrawlListResponse:
        return await self._read(CrawlListResponse, "/api/metrics/crawls", limit=limit, **query)

    async def compare(self, crawl_id: str, against: str) -> CrawlComparison:
        path = f"/api/metrics/crawls/{_segment(crawl_id)}/compare"
        return await self._read(CrawlComparison, path, against=against)

    async def page_changes(self, crawl_id: str, against: str, **query: Any) -> PageChangesResponse:
        path = f"/api/metrics/crawls/{_segment(crawl_id)}/changes"
        return await self._read(PageChangesResponse, path, against=against, **query)

    async def comparison(self, crawl_id: str, against: str, examples: int) -> ComparisonReport:
        """Compares two crawls, with the first pages of each kind of change, at most `examples`."""
        comparison = await self.compare(crawl_id, against)
        changes = await asyncio.gather(
            *(self.page_changes(crawl_id, against, kind=kind.value, limit=examples) for kind in ChangeKind)
        )
        listed = [change for each in changes for change in each.changes]
        page_changes = changes[0].model_copy(
            update={"changes": listed, "total": sum(changes[0].counts.values())}
        )
        return ComparisonReport(**vars(comparison), page_changes=page_changes)

    async def pages(self, crawl_id: str, **query: Any) -> PageListResponse:
        return await self._read(PageListResponse, f"/api/metrics/crawls/{_segment(crawl_id)}/pages", **query)

    async def page(self, crawl_id: str, url: str) -> ExportedPage:
        """The page with this source URL, with its text."""
        return await self._read(ExportedPage, f"/api/metrics/crawls/{_segment(crawl_id)}/page", url=url)

    async def diagnosis(self, crawl_id: str) -> DiagnosisResponse:
        return await self._read(DiagnosisResponse, f"/api/metrics/crawls/{_segment(crawl_id)}/diagnosis")

    async def report(self, crawl_id: str) -> CrawlReport:
        crawl, slowest, failed, diagnosis, stats = await asyncio.gather(
            self.crawl(crawl_id),
            self.pages(crawl_id, sort="slowest", limit=MAX_REPORT_PAGES),
            self.pages(crawl_id, state=PageState.FAILED.value, limit=MAX_REPORT_PAGES),
            self.diagnosis(crawl_id),
            self.stats(),
        )
        return CrawlReport(crawl, slowest, failed, diagnosis, stats.language_notice)

    async def stats(self) -> StatsResponse:
        return await self._read(StatsResponse, "/api/stats")

    async def export_pages(self, crawl_id: str) -> AsyncGenerator[ExportedPage, None]:
        """All pages of the crawl with their texts, one after the other."""
        async with self.export(crawl_id, ExportFormat.JSONL) as (_, chunks):
            async for line in _lines(chunks):
                yield ExportedPage.model_validate_json(line)

    @asynccontextmanager
    async def export(
        self,
        crawl_id: str,
        format: str,  # noqa: A002 - as the API calls it
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """The number of pages, and the bytes of the file as they come. Raises `ServiceUnavailable` if they
        end early.
        """
        path = f"/api/crawls/{_segment(crawl_id)}/export"
        with self._explained() as url:
            async with self._http.stream(
                "GET", url + path, params={"format": format}, timeout=EXPORT_SECONDS
            ) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                yield int(answer.headers[PAGES_HEADER]), answer.aiter_bytes()

    async def search(
        self,
        query: str,
        *,
        mode: Mode = "hybrid",
        limit: int = 10,
        offset: int = 0,
        filters: SearchFilters | Mapping[str, str | None] | None = None,
    ) -> SearchResponse:
        """Each result is a page, with its best passage in `text`. `limit` is at most 100."""
        wanted: dict[str, Any] = {"query": query, "mode": mode, "limit": limit, "offset": offset}
        if filters is not None:
            given = filters.model_dump(exclude_none=True) if isinstance(filters, SearchFilters) else filters
            wanted["filters"] = dict(given)
        answer = await self._ask("POST", "/api/search", json=wanted)
        return _parsed(SearchResponse, answer)

    async def keys(self) -> KeyList:
        return await self._read(KeyList, "/api/keys")

    async def add_key(self, name: str, scope: str) -> NewKey:
        answer = await self._ask("POST", "/api/keys", json={"name": name, "scope": scope})
        return _parsed(NewKey, answer)

    async def revoke_key(self, key_id: UUID) -> None:
        await self._ask("DELETE", f"/api/keys/{key_id}")

    async def begin_reindex(self) -> ReindexResponse:
        """Returns when the new index exists and its reindex is queued."""
        answer = await self._ask("POST", "/api/reindex")
        return _parsed(ReindexResponse, answer)

    async def reindex(self) -> ReindexResponse:
        return await self._read(ReindexResponse, "/api/reindex")

    async def _start(self, **wanted: Any) -> CrawlStarted:
        given = {name: value for name, value in wanted.items() if value is not None}
        answer = await self._ask("POST", "/api/crawls", json=given, timeout=FIRECRAWL_SECONDS)
        return _parsed(CrawlStarted, answer)

    async def _read(self, model: type[Answer], path: str, **query: Any) -> Answer:
        return _parsed(model, await self._ask("GET", path, params=query))

    async def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        with self._explained() as url:
            answer = await self._http.request(method, url + path, **options)
        if not answer.is_success:
            raise _refusal(answer)
        return answer

    @contextmanager
    def _explained(self) -> Iterator[str]:
        """Gives the service's address, and translates the errors of a connection to it."""
        url = self.url
        if url is None:
            raise ServiceUnavailable("no service runs for this data folder: start it with `crawlscope up`")
        try:
            yield url
        except UnicodeEncodeError as error:
            raise UsageError(f"a text is not valid Unicode, so it cannot be sent: {error.reason}") from error
        except httpx2.RequestError as error:
            raise ServiceUnavailable(
                f"the service at {url} does not answer: {str(error) or type(error).__name__}"
            ) from error


def _parsed(model: type[Answer], answer: httpx2.Response) -> Answer:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        raise _foreign(answer) from error


def _foreign(answer: httpx2.Response) -> UsageError:
    address = f"{answer.url.scheme}://{answer.url.netloc.decode()}"
    return UsageError(f"what answers at {address} is no Crawlscope, or one of another version: check the URL")


def _refusal(answer: httpx2.Response) -> CrawlscopeError:
    if answer.is_redirect:
        return UsageError(f"{answer.url} redirects to {answer.headers['Location']}: give the URL it leads to")
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"it answered {answer.status_code} {answer.reason_phrase}"
    if isinstance(detail, list):  # problems with what was sent, in FastAPI's words
        issues = []
        for issue in detail:
            where = ".".join(str(part) for part in issue.get("loc", ()) if part != "body")
            issues.append(f"{where}: {issue.get('msg', 'not valid')}")
        detail = "; ".join(issues)
    reason = " ".join(str(detail).split())
    match answer.status_code:
        case 401:
            return UsageError(
                f"the service at {answer.url.netloc.decode()} has another API secret: "
                "restart it, or set CRAWLSCOPE_API_SECRET to the one it runs with"
            )
        case 404:
            return NotFoundError(reason)
        case 502 | 503 | 504:
            return ServiceUnavailable(reason)
        case status if status < 500:
            return UsageError(reason)
    return CrawlscopeError(f"the service failed: {reason}")


def _segment(crawl_id: str) -> str:
    """The id as one path segment. Raises `NotFoundError` for an id that no path can contain."""
    if crawl_id in ("", ".", ".."):
        raise NotFoundError(f"Crawl not found: {crawl_id}")
    return quote(crawl_id, safe="")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Only at `\\n`: texts contain other characters that end lines elsewhere."""
    rest: list[bytes] = []
    async for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*rest, line])
            rest = []
        rest.append(last)
