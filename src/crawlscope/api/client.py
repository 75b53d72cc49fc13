"""The command line's way to the running service: HTTP, like every other client's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel
from starlette.types import ASGIApp

from crawlscope.changes.schemas import CrawlWatched
from crawlscope.core import service_file
from crawlscope.core.errors import CrawlscopeError, NotFoundError, ServiceUnavailable, UsageError
from crawlscope.core.secrets import api_secret, local_token
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import Engine
from crawlscope.crawls.schemas import (
    GOES_ON_HEADER,
    CrawlCancelled,
    CrawlDeleted,
    CrawlReconciled,
    CrawlRecounted,
    CrawlStarted,
    PagesQueued,
)
from crawlscope.insights.schemas import (
    CrawlComparison,
    CrawlListResponse,
    CrawlMetricsResponse,
    PageListResponse,
    ReindexResponse,
)
from crawlscope.search.schemas import SearchRequest, SearchResponse
from crawlscope.webhooks.schemas import DeliveriesReplayed

Answer = TypeVar("Answer", bound=BaseModel)

ANSWER_SECONDS = 30.0
FIRECRAWL_SECONDS = 120.0
"""The service itself waits for Firecrawl, and knows better why it does not answer."""
RECONCILE_SECONDS = 600.0
"""Everything that is missing is fetched before it answers."""
WATCH_SECONDS = 600.0
"""All watches are asked for before it answers, and those of somebody else before."""
SECRET_HEADER = "X-API-Secret"  # noqa: S105 - the header's name


class ServiceClient:
    """Asks for the service's address with each request, so that it may come back at another one.

    Every method raises `ServiceUnavailable` while no service answers, `NotFoundError` for a crawl that it
    does not know and `UsageError` for what it refuses.
    """

    def __init__(
        self,
        locate: Callable[[], str | None],
        headers: Mapping[str, str],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._locate = locate
        self._http = httpx2.AsyncClient(
            headers=dict(headers), timeout=ANSWER_SECONDS, trust_env=False, transport=transport
        )

    @classmethod
    def of(cls, settings: Settings, *, local: bool = True) -> Self:
        """For the service of this data folder, as the user who may read the folder.

        Unless `local`, as anybody else who knows the secret: private addresses are not crawled then.
        """

        def locate() -> str | None:
            service = service_file.read(settings.data_dir)
            return service.url if service else None

        headers = {SECRET_HEADER: api_secret(settings)}
        if local:
            headers["X-Crawlscope-Local"] = local_token(settings)
        return cls(locate, headers)

    @classmethod
    def within(cls, app: ASGIApp, secret: str) -> Self:
        """For the service that this process is, without a connection."""
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
        await self._ask("GET", "/readyz")

    async def is_ready(self) -> bool:
        try:
            await self.require_ready()
        except ServiceUnavailable:
            return False
        return True

    async def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._ask("GET", "/health")).json()
        return answer

    async def start_crawl(
        self,
        url: str,
        limit: int | None = None,
        engine: str | None = None,
        scrape_options: Mapping[str, Any] | None = None,
        crawl_options: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns the new crawl's id. The options are Firecrawl's, for crawls there."""
        order = {"limit": limit, "engine": engine, "crawl_options": crawl_options}
        return (await self._start(url=url, scrape_options=scrape_options, **order)).crawl_id

    async def start_batch(
        self, urls: Sequence[str], scrape_options: Mapping[str, Any] | None = None
    ) -> CrawlStarted:
        """Has Firecrawl scrape just these."""
        return await self._start(urls=list(urls), engine=Engine.FIRECRAWL, scrape_options=scrape_options)

    async def cancel(self, crawl_id: str) -> CrawlCancelled:
        path = f"/api/crawls/{_segment(crawl_id)}/cancel"
        answer = await self._ask("POST", path, timeout=FIRECRAWL_SECONDS)
        return CrawlCancelled.model_validate_json(answer.content)

    async def retry(
        self, crawl_id: str, urls: Sequence[str] | None = None, *, rescrape: bool = False
    ) -> PagesQueued:
        """Of `urls`, or of all pages that failed; with `rescrape` the crawler fetches what it can."""
        which: dict[str, Any] = {"urls": list(urls)} if urls else {}
        if rescrape:
            which["rescrape"] = True
        path = f"/api/crawls/{_segment(crawl_id)}/retry"
        answer = await self._ask("POST", path, json=which, timeout=FIRECRAWL_SECONDS)
        return PagesQueued.model_validate_json(answer.content)

    async def delete(self, crawl_id: str) -> CrawlDeleted:
        answer = await self._ask("DELETE", f"/api/crawls/{_segment(crawl_id)}", timeout=FIRECRAWL_SECONDS)
        return CrawlDeleted(crawl_id=crawl_id, goes_on=answer.headers.get(GOES_ON_HEADER))

    async def reconcile(self, crawl_id: str) -> CrawlReconciled:
        path = f"/api/crawls/{_segment(crawl_id)}/reconcile"
        answer = await self._ask("POST", path, timeout=RECONCILE_SECONDS)
        return CrawlReconciled.model_validate_json(answer.content)

    async def watch(self, crawl_id: str, limit: int | None = None) -> CrawlWatched:
        """Has changedetection.io watch the crawl's pages."""
        path = f"/api/crawls/{_segment(crawl_id)}/watches"
        which = {} if limit is None else {"limit": limit}
        answer = await self._ask("POST", path, json=which, timeout=WATCH_SECONDS)
        return CrawlWatched.model_validate_json(answer.content)

    async def recount(self, crawl_id: str) -> CrawlRecounted:
        answer = await self._ask("POST", f"/api/crawls/{_segment(crawl_id)}/recount")
        return CrawlRecounted.model_validate_json(answer.content)

    async def replay(self, **which: Any) -> DeliveriesReplayed:
        """`which` are the fields of the request, as JSON; none for every delivery."""
        answer = await self._ask("POST", "/api/deliveries/replay", json=which, timeout=RECONCILE_SECONDS)
        return DeliveriesReplayed.model_validate_json(answer.content)

    async def crawl(self, crawl_id: str) -> CrawlMetricsResponse:
        return await self._read(CrawlMetricsResponse, f"/api/metrics/crawls/{_segment(crawl_id)}")

    async def crawls(self, limit: int) -> CrawlListResponse:
        return await self._read(CrawlListResponse, "/api/metrics/crawls", limit=limit)

    async def compare(self, crawl_id: str, against: str) -> CrawlComparison:
        path = f"/api/metrics/crawls/{_segment(crawl_id)}/compare"
        return await self._read(CrawlComparison, path, against=against)

    async def pages(self, crawl_id: str, **query: Any) -> PageListResponse:
        return await self._read(PageListResponse, f"/api/metrics/crawls/{_segment(crawl_id)}/pages", **query)

    async def search(self, request: SearchRequest) -> SearchResponse:
        answer = await self._ask("POST", "/api/search", json=request.model_dump(exclude_none=True))
        return SearchResponse.model_validate_json(answer.content)

    async def begin_reindex(self) -> ReindexResponse:
        """Returns when the new index is there and its filling is queued."""
        answer = await self._ask("POST", "/api/reindex")
        return ReindexResponse.model_validate_json(answer.content)

    async def reindex(self) -> ReindexResponse:
        return await self._read(ReindexResponse, "/api/reindex")

    async def _start(self, **order: Any) -> CrawlStarted:
        given = {name: value for name, value in order.items() if value is not None}
        answer = await self._ask("POST", "/api/crawls", json=given, timeout=FIRECRAWL_SECONDS)
        return CrawlStarted.model_validate_json(answer.content)

    async def _read(self, model: type[Answer], path: str, **query: Any) -> Answer:
        return model.model_validate_json((await self._ask("GET", path, params=query)).content)

    async def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        url = self.url
        if url is None:
            raise ServiceUnavailable("no service runs for this data folder: start it with `crawlscope up`")
        try:
            answer = await self._http.request(method, url + path, **options)
        except httpx2.TransportError as error:
            raise ServiceUnavailable(
                f"the service at {url} does not answer: {str(error) or type(error).__name__}"
            ) from error
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx2.Response) -> CrawlscopeError:
    words = _detail(answer)
    match answer.status_code:
        case 401:
            return UsageError(
                f"the service at {answer.url.host}:{answer.url.port} has another API secret: "
                "restart it, or set CRAWLSCOPE_API_SECRET to the one it runs with"
            )
        case 404:
            return NotFoundError(words)
        case 502 | 503 | 504:
            return ServiceUnavailable(words)
        case status if status < 500:
            return UsageError(words)
    return CrawlscopeError(f"the service failed: {words}")


def _detail(answer: httpx2.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code} {answer.reason_phrase}"
    if isinstance(detail, list):
        return "; ".join(_issue(issue) for issue in detail)
    return " ".join(str(detail).split())


def _issue(issue: Mapping[str, Any]) -> str:
    """One problem with what was sent, as FastAPI words it."""
    where = ".".join(str(part) for part in issue.get("loc", ()) if part != "body")
    return f"{where}: {issue.get('msg', 'not valid')}"


def _segment(crawl_id: str) -> str:
    """One path segment. Raises `NotFoundError` for what cannot be one: no path leads to such a crawl."""
    if crawl_id in ("", ".", ".."):
        raise NotFoundError(f"Crawl not found: {crawl_id}")
    return quote(crawl_id, safe="")
