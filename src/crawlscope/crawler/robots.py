"""The rules of a site's robots.txt (RFC 9309)."""

import re
from dataclasses import dataclass

from protego import Protego

from crawlscope.crawler.fetch import ROBOT, FetchedPage, FetchFailed
from crawlscope.crawler.reading.charset import decode

READ_BYTES = 512 * 1024
_FORBID_ALL = "User-agent: *\nDisallow: /"
_MAX_DELAY_SECONDS = 30.0
_HTML = re.compile(r"\s*<(?:!doctype|html|head|body|!--)", re.IGNORECASE)


@dataclass(frozen=True)
class RobotsRules:
    _rules: Protego
    refusal: str
    """Why a page may not be requested, if `allows` is false."""

    @classmethod
    def read(cls, url: str, answer: FetchedPage | FetchFailed) -> "RobotsRules":
        """No robots.txt allows everything, one that the server fails to give allows nothing."""
        if isinstance(answer, FetchFailed):
            unreadable = f"cannot be read ({answer})"
            return cls._forbidding(str(answer) if answer.unreachable else _unreadable(url, unreadable))
        if answer.status_code >= 500 or answer.status_code == 429:
            return cls._forbidding(_unreadable(url, f"answered {answer.status_code}"))
        # A line that was cut off is left out: half a path is another rule.
        body = answer.body if len(answer.body) < READ_BYTES else answer.body.rpartition(b"\n")[0]
        text = decode(body, answer.charset) if answer.status_code < 300 else ""
        return cls(Protego.parse("" if _HTML.match(text) else text), f"blocked by {url}")

    @classmethod
    def _forbidding(cls, refusal: str) -> "RobotsRules":
        return cls(Protego.parse(_FORBID_ALL), refusal)

    def allows(self, url: str) -> bool:
        return bool(self._rules.can_fetch(url, ROBOT))

    @property
    def delay_seconds(self) -> float:
        """Between the starts of two requests."""
        rate = self._rules.request_rate(ROBOT)
        between = 0.0
        if rate and rate.requests:  # of any size: whole numbers are divided when the result is small
            between = min(rate.seconds, int(_MAX_DELAY_SECONDS) * rate.requests) / rate.requests
        return min(max(self._rules.crawl_delay(ROBOT) or 0.0, between), _MAX_DELAY_SECONDS)

    @property
    def sitemaps(self) -> list[str]:
        """As written, which can be relative."""
        return list(dict.fromkeys(self._rules.sitemaps))


def _unreadable(url: str, what: str) -> str:
    return f"{url} {what}: nothing may be crawled until it can be read"
