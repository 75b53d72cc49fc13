"""Requests pages by the rules of their hosts: only those that robots.txt allows, at the hosts' pace, and
again if that can help."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import urljoin

from crawlscope.core.backoff import backoff
from crawlscope.core.retry_after import retry_after_seconds
from crawlscope.crawler.fetch import FetchedPage, FetchFailed, PageClient
from crawlscope.crawler.links import absolute, normalise, site_of
from crawlscope.crawler.pace import MAX_WAIT_SECONDS, Clock, Pace
from crawlscope.crawler.robots import READ_BYTES, RobotsRules

_MAX_REDIRECTS = 10
_TOO_MANY = 429
_UNAVAILABLE = 503
_PASSING = frozenset({408, 425, 500, 502, _UNAVAILABLE, 504, 520, 521, 522, 523, 524})
_MAX_ATTEMPTS = {_TOO_MANY: 8, _UNAVAILABLE: 4}
"""The backoff between eight makes up a minute, the usual window of limits."""
_MAX_ATTEMPTS_WHERE_FAILING = 3
_MAX_ATTEMPTS_TO_CONNECT = 2
_FIRST_BACKOFF_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 16.0


class Forbidden(FetchFailed):
    """By robots.txt; `url` may be where a redirect leads."""

    def __init__(self, refusal: str, url: str) -> None:
        super().__init__(refusal)
        self.url = url


@dataclass
class RequestTimes:
    """Sums over the requests of a crawl."""

    requests: int = 0
    response_ms: float = 0.0
    """The time until the answers of the site were received."""
    refusals: int = 0
    """Answers that limit the rate of requests."""
    delay_ms: float = 0.0
    """The time that requests waited because the site limits their rate."""


@dataclass(frozen=True)
class _Host:
    rules: RobotsRules
    pace: Pace


class PoliteClient:
    """All requests of one crawl. When `stopping` is set, those that wait for their turn raise `Stopped`."""

    def __init__(self, client: PageClient, clock: Clock, stopping: asyncio.Event) -> None:
        self._client = client
        self._clock = clock
        self._stopping = stopping
        self.times = RequestTimes()
        self._hosts: dict[str, _Host] = {}
        self._arriving = asyncio.Lock()

    async def rules(self, url: str) -> RobotsRules:
        """The rules of the site of a normalised URL."""
        return (await self._host(url)).rules

    async def fetch(
        self,
        url: str,
        may_follow: Callable[[str], bool],
        *,
        text_only: bool = False,
        first_bytes: int | None = None,
    ) -> FetchedPage:
        """Follows redirects that `may_follow` and robots.txt allow; the page's URL is the last, normalised.
        Each address on the way is requested as written: servers that require a session id have to get it.

        Raises `FetchFailed`, `Forbidden` or `Stopped`.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            host = await self._host(url)
            if not host.rules.allows(url):
                raise Forbidden(host.rules.refusal, url)
            page = await self._ask(host.pace, url, text_only=text_only, first_bytes=first_bytes)
            if not page.redirects:
                return replace(page, url=normalise(page.url) or page.url)
            target = _target(page)
            if not may_follow(target):
                raise FetchFailed(f"not followed: it leads to another site, {target}", code="external_link")
            url = target
        raise _too_many_redirects()

    async def _host(self, url: str) -> _Host:
        site = site_of(url)
        if site not in self._hosts:
            async with self._arriving:
                if site not in self._hosts:
                    self._hosts[site] = await self._arrive(url, site)
        return self._hosts[site]

    async def _arrive(self, url: str, site: str) -> _Host:
        """Reads robots.txt, wherever its redirects lead: no other robots.txt can forbid to read this one."""
        name = site.removesuffix(":default")
        robots_url = target = urljoin(url, "/robots.txt")
        pace = Pace(name, self._clock, self._stopping)
        answer: FetchedPage | FetchFailed = _too_many_redirects()
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                page = await self._ask(pace, target, first_bytes=READ_BYTES)
                if not page.redirects:
                    answer = page
                    break
                target = _target(page)
        except FetchFailed as failure:
            answer = failure
        rules = RobotsRules.read(robots_url, answer)
        return _Host(rules, Pace(name, self._clock, self._stopping, rules.delay_seconds))

    async def _ask(
        self, pace: Pace, url: str, *, text_only: bool = False, first_bytes: int | None = None
    ) -> FetchedPage:
        """Once, and again as long as that can help; then the last HTTP answer counts."""
        answer: FetchedPage | None = None
        failures = 0
        for attempt in count(1):
            wanted_at = self._clock.now()
            try:
                async with pace.turn() as asked_at:
                    self.times.delay_ms += (asked_at - wanted_at) * 1000
                    self.times.requests += 1
                    answer = await self._client.get(url, text_only=text_only, first_bytes=first_bytes)
                    self.times.response_ms += (self._clock.now() - asked_at) * 1000
            except FetchFailed as failure:
                failures += 1
                if failures < _MAX_ATTEMPTS_TO_CONNECT and failure.retryable:
                    await pace.wait(_FIRST_BACKOFF_SECONDS)
                elif answer is None:
                    raise
                else:
                    return answer
            else:
                if not await self._try_again(pace, answer, attempt, asked_at):
                    return answer
        raise AssertionError("unreachable")

    async def _try_again(self, pace: Pace, answer: FetchedPage, attempt: int, asked_at: float) -> bool:
        """After the delay that it takes. At first the whole host waits; a page that is refused again waits
        alone, since the trouble may be its own."""
        status_code = answer.status_code
        limited = status_code == _TOO_MANY
        if not limited and status_code not in _PASSING:
            pace.answered()
            return False
        retry_after = retry_after_seconds(answer.headers.get("retry-after"))
        delay = retry_after or backoff(
            attempt, first_seconds=_FIRST_BACKOFF_SECONDS, max_seconds=_MAX_BACKOFF_SECONDS
        )
        all_wait = attempt <= 2 if limited else attempt == 1 and bool(retry_after)
        hopeless = not limited and delay > MAX_WAIT_SECONDS
        if limited or status_code == _UNAVAILABLE or retry_after:
            self.times.refusals += 1
            pace.refused(asked_at, status_code, delay if all_wait and not hopeless else 0.0)
        if hopeless or attempt >= _MAX_ATTEMPTS.get(status_code, _MAX_ATTEMPTS_WHERE_FAILING):
            return False
        if not all_wait:
            self.times.delay_ms += delay * 1000
            await pace.wait(delay)
        return True


def _target(page: FetchedPage) -> str:
    """The target of a redirect. Raises `FetchFailed` if it has none."""
    location = page.headers.get("location", "").partition("\n")[0]
    target = absolute(location, page.url) if location.strip() else None
    if target is None:
        where = f"to {location[:200]!r}, which cannot be requested" if location else "without a target"
        raise FetchFailed(f"answered {page.status_code} {where}")
    return target


def _too_many_redirects() -> FetchFailed:
    return FetchFailed(f"more than {_MAX_REDIRECTS} redirects")
