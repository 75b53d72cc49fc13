"""What a site's robots.txt lets this crawler do (RFC 9309)."""

from dataclasses import dataclass
from urllib.parse import urljoin

import stamina
from protego import Protego

from crawlscope.crawler.fetch import ROBOT, FetchedPage, FetchFailed, PageClient

_READ_BYTES = 512 * 1024
_FORBID_ALL = "User-agent: *\nDisallow: /"
_TRIES = 2
_LONGEST_DELAY_SECONDS = 30.0


@dataclass(frozen=True)
class RobotsRules:
    url: str
    _rules: Protego
    refusal: str
    """Why a page may not be asked for, where `allows` says so."""

    @classmethod
    async def load(cls, client: PageClient, page_url: str) -> "RobotsRules":
        """No robots.txt allows everything, one that the server fails to give allows nothing."""
        url = urljoin(page_url, "/robots.txt")
        try:
            answer = await _ask(client, url)
        except FetchFailed as failure:
            refusal = str(failure) if failure.unreachable else _unreadable(url, f"cannot be read ({failure})")
            return cls(url, Protego.parse(_FORBID_ALL), refusal)
        if answer.status_code >= 500:
            refusal = _unreadable(url, f"answered {answer.status_code}")
            return cls(url, Protego.parse(_FORBID_ALL), refusal)
        text = _whole_lines(answer.body).decode("utf-8", "replace") if answer.status_code < 300 else ""
        return cls(url, Protego.parse(text), f"blocked by {url}")

    def allows(self, url: str) -> bool:
        return bool(self._rules.can_fetch(url, ROBOT))

    @property
    def delay_seconds(self) -> float:
        """Between the starts of two requests."""
        return min(self._rules.crawl_delay(ROBOT) or 0.0, _LONGEST_DELAY_SECONDS)


async def _ask(client: PageClient, url: str) -> FetchedPage:
    @stamina.retry(on=_may_pass, attempts=_TRIES, timeout=None, wait_initial=0.2)
    async def ask() -> FetchedPage:
        return await client.fetch(url, first_bytes=_READ_BYTES)

    return await ask()


def _may_pass(error: Exception) -> bool:
    return isinstance(error, FetchFailed) and error.retryable


def _unreadable(url: str, what: str) -> str:
    return f"{url} {what}: nothing may be crawled until it can be read"


def _whole_lines(body: bytes) -> bytes:
    """Half a path would be another rule."""
    return body if len(body) < _READ_BYTES else body.rpartition(b"\n")[0]
