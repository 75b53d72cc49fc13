"""Has changedetection.io watch the searchable pages of a crawl, and tell us when they change."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import structlog

from crawlscope.changes.changedetection_client import ChangedetectionClient
from crawlscope.changes.schemas import CrawlWatched, PageNotWatched
from crawlscope.changes.watch_notifications import BODY, FORMAT, by_secret, by_token, spellings
from crawlscope.changes.watched_pages import SearchablePage, pages_to_watch
from crawlscope.core.errors import ChangedetectionRefused, ChangedetectionUnavailable, SettingsError
from crawlscope.core.public_address import public_address
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import Settings
from crawlscope.core.values import storable
from crawlscope.crawls.repository import known_crawl
from crawlscope.database.engine import Database

DEFAULT_LIMIT = 1_000
MOST_WATCHES = 10_000
AT_ONCE = 4
LONGEST_SECONDS = 240.0
"""After so long no further watch is begun."""
LONGEST_TITLE = 1_000
COMPLAINTS = (400, 422)
"""Statuses that say what is wrong with one watch, not with who asks."""
NOT_SEARCHABLE = "no searchable page of this crawl"
MAYBE_CREATED = "It may have been created all the same: ask again, then it is known."

_FILLED_IN = re.compile(r"\{\{|\{%[-+]?\s*[a-zA-Z_]")
"""What makes a URL a template there; `{%22` does not."""
_SHARED = "https://changedetection.io/share/"

log = structlog.get_logger(__name__)


def changedetection_client(settings: Settings) -> ChangedetectionClient:
    """Raises `SettingsError` where none is set. Reads the certificates: 0.1 to 0.5 s."""
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
    """One for all who ask in a process: two at once would create each watch twice."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._turn = asyncio.Lock()

    async def watch(
        self, crawl_id: str, limit: int = DEFAULT_LIMIT, urls: Sequence[str] | None = None
    ) -> CrawlWatched:
        """Creates at most `limit` watches. Safe to repeat: pages that are watched already are left alone.

        Raises `NotFoundError`, `SettingsError`, and `ChangedetectionUnavailable` or `ChangedetectionRefused`
        where that is all that came of it.
        """
        crawl_id = storable(crawl_id)
        named = None if urls is None else [storable(url) for url in urls]
        await self._database.run(lambda connection: known_crawl(connection, crawl_id))
        notification_url = self._notification_url()
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

    def _notification_url(self) -> str:
        """Where a token lets notifications in, the API secret stays here."""
        address, token = public_address(self._settings), self._settings.receive_token
        if token:
            return by_token(address, token.get_secret_value())
        return by_secret(address, api_secret(self._settings))


class _Creating:
    """Asks for the watches, a few at a time, until changedetection.io is away or wants no more."""

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
        deadline, pages = time.monotonic() + LONGEST_SECONDS, iter(self._pages)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work(pages, deadline))
        if self._end and not self.created:
            raise self._end

    async def _work(self, pages: Iterator[SearchablePage], deadline: float) -> None:
        while self._end is None and time.monotonic() < deadline:
            page = next(pages, None)
            if page is None:
                return
            await self._create(page)

    async def _create(self, page: SearchablePage) -> None:
        reason = _not_watchable(page.url)
        if reason:
            self._refuse(page, reason)
            return
        try:
            await self._client.create(_watch(page, self._notification_url))
        except ChangedetectionRefused as error:
            self._refuse(page, str(error))
            if error.status_code not in COMPLAINTS:
                self._end = error
        except ChangedetectionUnavailable as error:
            self._refuse(page, f"{error} {MAYBE_CREATED}" if error.maybe_done else str(error))
            self._end = error
        else:
            self.created += 1

    def _refuse(self, page: SearchablePage, reason: str) -> None:
        self.refused.append(PageNotWatched(url=page.url, reason=reason))


def _watch(page: SearchablePage, notification_url: str) -> dict[str, Any]:
    """In the words of changedetection.io's API."""
    return {
        "url": page.url,
        **({"title": page.title[:LONGEST_TITLE]} if page.title else {}),
        "notification_urls": [notification_url],
        "notification_format": FORMAT,
        "notification_body": BODY,
    }


def _not_watchable(url: str) -> str | None:
    """What changedetection.io would take, but for something else than this page."""
    if _FILLED_IN.search(url):
        return "changedetection.io takes its URL for a template to fill in, because of {{ or {%"
    if url.startswith(_SHARED):
        return "changedetection.io takes its URL for somebody's shared watch, and adopts that"
    return None
