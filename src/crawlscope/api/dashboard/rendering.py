"""Renders the dashboard's pages: the Jinja environment, its filters, and the headers of every page."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from crawlscope import __version__
from crawlscope.api.dashboard import figures
from crawlscope.api.dashboard.flash_messages import COOKIE as NOTICE_COOKIE
from crawlscope.api.dashboard.flash_messages import notice_of
from crawlscope.api.dashboard.live_pages import FEED
from crawlscope.api.http.access import require_access
from crawlscope.api.http.errors import issue_words
from crawlscope.api.http.events import feed_for, live_of, until_lost
from crawlscope.api.http.requests import shown_path
from crawlscope.api.rendering import words
from crawlscope.core.errors import CrawlscopeError, DependencyError, NotFoundError, RemoteRefused, UsageError
from crawlscope.insights.progress import pages_per_second

log = structlog.get_logger(__name__)

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
SHARED_SECONDS = 1.5
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATUS_OF_ERRORS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, 404),
    (RemoteRefused, 502),
    (DependencyError, 503),
    (UsageError, 422),
)
TITLES = {
    404: "Not found",
    422: "That does not work",
    502: "Refused",
    500: "That went wrong",
    503: "Unavailable at the moment",
}


def time_tag(moment: datetime | None, form: str = "full") -> Markup:
    """A `<time>` in UTC; the page's script turns it into the viewer's zone. `form`: `full` or `clock`."""
    if moment is None:
        return Markup('<span class="none">–</span>')
    utc = moment.astimezone(UTC)
    text = utc.strftime("%H:%M:%S" if form == "clock" else "%Y-%m-%d %H:%M:%S")
    iso = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    title = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}" data-form="{}">{}</time>').format(iso, title, form, text)


def ago_tag(moment: datetime | None) -> Markup:
    if moment is None:
        return Markup('<span class="none">–</span>')
    utc = moment.astimezone(UTC)
    iso = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text, title = words.ago(moment, datetime.now(UTC)), f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}" data-form="ago">{}</time>').format(iso, title, text)


def bytes_text(size: float | None) -> str:
    if size is None:
        return words.NONE
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def rate_text(per_second: float | None) -> str:
    """Without its unit, which a heading or the text after it gives."""
    if per_second is None:
        return words.NONE
    return f"{per_second:,.1f}" if per_second < 100 else f"{per_second:,.0f}"


def number_text(number: float | None) -> str:
    return words.NONE if number is None else f"{number:,.0f}"


def ratio_text(ratio: float | None) -> str:
    if ratio is None:
        return words.NONE
    return f"×{words.ratio(ratio)}"


def with_code(sentence: str) -> Markup:
    """The sentence, with the text in backticks as code."""
    pieces = enumerate(sentence.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(each) if at % 2 else each for at, each in pieces)


def host_text(url: str) -> str:
    """The host of a URL, without its port's default and its scheme."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url
    except ValueError:
        return url


def path_text(url: str) -> str:
    """The part of a URL after the host; the whole URL if it has no such part."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if not parts.netloc:
        return url
    return parts._replace(scheme="", netloc="").geturl() or "/"


def safe_link(url: str) -> str | None:
    """The URL where it may be followed: a crawled page can have a URL such as `javascript:…`."""
    return url if url.startswith(("http://", "https://")) else None


@cache
def asset(name: str) -> str:
    """The URL of a static file, which changes with its content."""
    digest = sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def with_query(request: Request, **changes: Any) -> str:
    """The present address with other query parameters; None removes one."""
    query = {**request.query_params, **changes}
    text = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return f"{request.url.path}?{text}" if text else request.url.path


def crawl_path(crawl_id: str, *below: str, **query: Any) -> str:
    path = "/".join(["/crawls", quote(crawl_id, safe=""), *below])
    text = urlencode({name: value for name, value in query.items() if value is not None})
    return f"{path}?{text}" if text else path


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # a running service keeps its own while files are replaced
    )
    environment.filters |= {
        "ago": ago_tag,
        "bytes": bytes_text,
        "count": words.count,
        "duration": words.duration,
        "host": host_text,
        "json": lambda value: json.dumps(value, ensure_ascii=False),
        "label": words.label,
        "number": number_text,
        "path": path_text,
        "positive": lambda value: max(0.0, value),
        "percent": words.percent,
        "rate": rate_text,
        "ratio": ratio_text,
        "safe_link": safe_link,
        "shorten": words.shorten_middle,
        "time": time_tag,
        "with_code": with_code,
    }
    environment.globals |= {
        "asset": asset,
        "crawl_path": crawl_path,
        "figures": figures,
        "pages_per_second": pages_per_second,
        "stage_labels": lambda: {name: words.label(name) for name in figures.STAGE_NAMES},
        "version": __version__,
        "with_query": with_query,
    }
    return environment


ENVIRONMENT = _environment()


def render(request: Request, template: str, /, *, http_status: int = 200, **values: Any) -> HTMLResponse:
    """`request` and the values are what the template sees."""
    notice = notice_of(request)
    html = ENVIRONMENT.get_template(template).render(
        request=request, now=datetime.now(UTC), notice=notice, **values
    )
    answer = HTMLResponse(html, http_status, SECURITY_HEADERS)
    if notice is not None:
        answer.delete_cookie(NOTICE_COOKIE)
    return answer


class SharedAnswers:
    """Answers that many viewers request at the same time: each is made once, and all viewers get it."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, asyncio.Task[Response]]] = {}

    async def get(self, address: str, make: Callable[[], Coroutine[Any, Any, Response]]) -> Response:
        now = time.monotonic()
        self._answers = {
            each: kept for each, kept in self._answers.items() if kept[0] > now or not kept[1].done()
        }
        if address not in self._answers:
            self._answers[address] = (now + SHARED_SECONDS, asyncio.create_task(make()))
        answer = await asyncio.shield(self._answers[address][1])
        return Response(answer.body, answer.status_code, dict(answer.headers), answer.media_type)


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route for people: its errors are pages too, and a browser can follow it."""

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def answer_with_page(request: Request) -> Response:
            try:
                if request.method == "GET" and request.headers.get("accept") == FEED:
                    return await self._followed(request)
                return await answer(request)
            except RequestValidationError as error:
                problems = [f"{issue['loc'][-1]}: {issue_words(issue)}" for issue in error.errors()]
                return error_page(request, 422, "; ".join(problems))
            except HTTPException as error:
                return error_page(request, error.status_code, str(error.detail))
            except CrawlscopeError as error:
                status = next((code for kind, code in STATUS_OF_ERRORS if isinstance(error, kind)), 422)
                return error_page(request, status, str(error))
            except Exception:
                log.exception("page_failed", path=shown_path(request.scope))
                return error_page(request, 500, "The log of the service has the reason.")

        return answer_with_page

    async def _followed(self, request: Request) -> Response:
        """The feed of the page: of the crawl in its path, otherwise of all crawls."""
        await require_access(request)
        live, pages = live_of(request), request.app.state.followed_pages
        crawl_id = unquote(request.path_params.get("crawl_id", ""))  # as a `Segment`
        news = await (live.crawl(crawl_id, with_pages=False) if crawl_id else live.crawls())
        if news is None:
            return Response(status_code=204)
        return feed_for(request, pages.follow(request, self.app, until_lost(news)))


def error_page(request: Request, status: int, reason: str) -> HTMLResponse:
    return render(
        request,
        "error.html",
        http_status=status,
        title=TITLES.get(status, "That does not work"),
        reason=reason,
    )


def page_router() -> APIRouter:
    """For routes whose answers are pages, which the API's documentation leaves out."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, tags=["dashboard"])
