"""What a site's robots.txt lets this crawler do (RFC 9309)."""

from dataclasses import dataclass
from urllib.parse import urljoin

from protego import Protego

from crawlscope.crawler.fetch import ROBOT, FetchFailed, PageClient

_READ_BYTES = 512 * 1024
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
            answer = await client.fetch(url)
        except FetchFailed:
            # The pages will fail for the same reason, and say it better.
            return cls(url, Protego.parse(""), "")
        if answer.status_code >= 500:
            refusal = f"{url} answered {answer.status_code}: nothing may be crawled until it can be read"
            return cls(url, Protego.parse("User-agent: *\nDisallow: /"), refusal)
        text = answer.body[:_READ_BYTES].decode("utf-8", "replace") if answer.status_code < 300 else ""
        return cls(url, Protego.parse(text), f"blocked by {url}")

    def allows(self, url: str) -> bool:
        return bool(self._rules.can_fetch(url, ROBOT))

    @property
    def delay_seconds(self) -> float:
        """Between the starts of two requests."""
        return min(self._rules.crawl_delay(ROBOT) or 0.0, _LONGEST_DELAY_SECONDS)
