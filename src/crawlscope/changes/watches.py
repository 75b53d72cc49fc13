"""Has changedetection.io watch the searchable pages of a crawl, and report their changes here."""

import asyncio
import re
import time
from collections.abc import Sequence
from urllib.parse import quote

import structlog

from crawlscope.changes.changedetection_client import ChangedetectionClient
from crawlscope.changes.repository import SearchablePage, pages_to_watch
from crawlscope.changes.schemas import CrawlWatched, PageNotWatched
from crawlscope.core.errors import ChangedetectionRefused, ChangedetectionUnavailable, SettingsError
from crawlscope.core.secrets import api_secret
from crawlscope.core.service_file import CHANGES_PATH, public_address
from crawlscope.core.settings import Settings
from crawlscope.core.values import storable
from crawlscope.crawls.repository import known_crawl
from crawlscope.database.engine import Database

FORMAT = "text"
"""The other notification formats put HTML into the body."""
BODY = """\
{
  "watch_url": {{ watch_url | tojson }},
  "watch_id": {{ watch_uuid | tojson }},
  "watch_title": {{ watch_title | tojson }},
  "diff": {{ diff | tojson }},
  "snapshot_url": {{ preview_url | tojson }},
  "detected_at": {{ change_datetime | tojson }}
}"""
"""A template that changedetection.io fills in."""
DEFAULT_LIMIT = 1_000
MAX_WATCHES = 10_000
AT_ONCE = 4
MAX_SECONDS = 240.0
"""After this time no further watch is created."""
MAX_TITLE_LENGTH = 1_000
COMPLAINTS = (400, 422)
"""Statuses that say what is wrong with one watch, not with the client."""
NOT_SEARCHABLE = "no searchable page of this crawl"
MAYBE_CREATED = "It may have been created all the same: ask again, then it is known."

_FILLED_IN = re.compile(r"\{\{|\{%[-+]?\s*[a-zA-Z_]")
"""A part that makes a URL a template for changedetection.io; `{%22` does not."""
_SHARED = "https://changedetection.io/share/"

log = structlog.get_logger(__name__)


def changedetection_client(settings: Settings) -> ChangedetectionClient:
    """Raises `SettingsError` if none is set. Reads the certificates: 0.1 to 0.5 s."""
    if settings.changedetection_url is None:
        raise SettingsError(
            "no changedetection.io is known: set CRAWLSCOPE_CHANGEDETECTION_URL to its address"
        )
    key, token = settings.changedetection_api_key, settings.receive_token
    secrets = [api_secret(settings), *([token.get_secret_value()] if token else [])]
    return ChangedetectionClient(
        settings.changedetection_url,
        key.get_secret_value() if key else None,
        hidden=[spelled for secret in secrets for spelled in spellings(secret)],
    )


class Watching:
    """Shared by all of a process: two requests at once would create each watch twice."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._turn = asyncio.Lock()

    async def watch(
        self, crawl_id: str, limit: int = DEFAULT_LIMIT, urls: Sequence[str] | None = None
    ) -> CrawlWatched:
        """Creates at most `limit` watches. Safe to repeat: pages that are already watched stay unchanged.

        Raises `NotFoundError`, `SettingsError`, and `ChangedetectionUnavailable` or `ChangedetectionRefused`
        if no watch was created.
        """
        crawl_id = storable(crawl_id)
        named = None if urls is None else [storable(url) for url in urls]
        await self._database.run(lambda connection: known_crawl(connection, crawl_id))
        address, token = public_address(self._settings), self._settings.receive_token
        if token:  # then the API secret stays here
            notification_url = by_token(address, token.get_secret_value())
        else:
            notification_url = by_secret(address, api_secret(self._settings))
        async with self._turn, await asyncio.to_thread(changedetection_client, self._settings) as client:
            watched = await client.watched_urls()
            pages = await self._database.run(
                lambda connection: pages_to_watch(connection, crawl_id, watched, limit, named)
            )
            creating = _Creating(client, notification_url, pages.without)
            await creating.run()
        refused = [PageNotWatched(url=url, reason=NOT_SEARCHABLE) for url in pages.not_searchable]
        log.info("crawl_watched", crawl_id=crawl_id, created=creating.created, known=pages.known)
        return CrawlWatched(
            crawl_id=crawl_id,
            created=creating.created,
            known=pages.known,
            refused=[*refused, *creating.refused],
            left=pages.beyond + creating.left,
        )


class _Creating:
    """Creates watches, a few at a time, until changedetection.io is unavailable or refuses any more."""

    def __init__(
        self, client: ChangedetectionClient, notification_url: str, pages: Sequence[SearchablePage]
    ) -> None:
        self._client = client
        self._notification_url = notification_url
        self._pages = pages
        self._end: ChangedetectionUnavailable | ChangedetectionRefused | None = None
        self.created = 0
        self.refused: list[PageNotWatched] = []

    @property
    def left(self) -> int:
        return len(self._pages) - self.created - len(self.refused)

    async def run(self) -> None:
        """Raises what ended it where nothing was created."""
        deadline, pages = time.monotonic() + MAX_SECONDS, iter(self._pages)

        async def work() -> None:
            while self._end is None and time.monotonic() < deadline and (page := next(pages, None)):
                reason = _not_watchable(page.url) or await self._create(page)
                if reason:
                    self.refused.append(PageNotWatched(url=page.url, reason=reason))
                else:
                    self.created += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        if self._end and not self.created:
            raise self._end

    async def _create(self, page: SearchablePage) -> str | None:
        """Why the page has no watch; None for success."""
        watch = {
            "url": page.url,
            **({"title": page.title[:MAX_TITLE_LENGTH]} if page.title else {}),
            "notification_urls": [self._notification_url],
            "notification_format": FORMAT,
            "notification_body": BODY,
        }
        try:
            await self._client.create(watch)
        except ChangedetectionRefused as error:
            if error.status_code not in COMPLAINTS:
                self._end = error
            return str(error)
        except ChangedetectionUnavailable as error:
            self._end = error
            return f"{error} {MAYBE_CREATED}" if error.maybe_done else str(error)
        return None


def _not_watchable(url: str) -> str | None:
    """Why changedetection.io would take the URL for something else than this page."""
    if _FILLED_IN.search(url):
        return "changedetection.io takes its URL for a template to fill in, because of {{ or {%"
    if url.startswith(_SHARED):
        return "changedetection.io takes its URL for a shared watch, and adopts that"
    return None


def by_secret(address: str, secret: str) -> str:
    """The notification URL that sends the API secret as a header; `address` is the public address."""
    # Both Apprise and changedetection.io decode a header's value.
    return f"{_sent_to(address)}?+X-API-Secret={_quoted(_quoted(secret))}"


def by_token(address: str, token: str) -> str:
    """The notification URL that names the receive token in its path, and no secret."""
    return f"{_sent_to(address)}/{_quoted(token)}"


def spellings(secret: str) -> set[str]:
    """All the ways in which changedetection.io may write the secret of a watch."""
    return {secret, _quoted(secret), _quoted(_quoted(secret))}


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _sent_to(address: str) -> str:
    """Apprise writes a POST as `post://`, and with TLS as `posts://`."""
    scheme, _, place = address.partition("://")
    return f"{'posts' if scheme.lower() == 'https' else 'post'}://{place}{CHANGES_PATH}"
