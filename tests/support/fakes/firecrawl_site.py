"""The sites of a fake Firecrawl: pages, pages that cannot be fetched, and pages that robots.txt forbids."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

ENGINES_FAILED = (
    "All scraping engines failed to retrieve content from this URL. Engines tried: [fetch]. This usually "
    "happens when: (1) The URL is invalid or the page doesn't exist (404), (2) The website is blocking "
    "automated access, (3) The website is down or unreachable, (4) The page requires authentication."
)
_WORDS = [
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "island",
    "jetty",
    "knoll",
    "meadow",
    "ocean",
    "prairie",
    "quarry",
    "ridge",
    "summit",
    "tundra",
    "upland",
    "valley",
    "willow",
    "zenith",
]


def made_up_markdown(url: str, length: int = 900) -> str:
    """The same for the same URL, exactly so many characters long."""
    random = Random(url)
    text = f"# {url.rsplit('/', 1)[-1] or 'index'}\n\n"
    while len(text) < length:
        text += " ".join(random.choices(_WORDS, k=12)).capitalize() + f" {random.randint(1000, 99999)}.\n"
    return text[:length]


@dataclass(frozen=True)
class Page:
    url: str
    markdown: str | None = None
    """None: made up from the URL."""
    status_code: int = 200
    title: str | None = None
    final_url: str | None = None
    """After redirects."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def document(self, scrape_id: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "url": self.final_url or self.url,
            "title": self.title or f"Page {self.url.rsplit('/', 1)[-1] or 'index'}",
            "language": "en",
            "scrapeId": scrape_id,
            "proxyUsed": "basic",
            "sourceURL": self.url,
            "statusCode": self.status_code,
            "contentType": "text/html; charset=utf-8",
            "creditsUsed": 1,
        }
        markdown = made_up_markdown(self.url) if self.markdown is None else self.markdown
        return {"markdown": markdown, "metadata": {**metadata, **self.metadata}}


@dataclass(frozen=True)
class Failure:
    """A page that brings no document."""

    url: str
    code: str | None = "SCRAPE_ALL_ENGINES_FAILED"
    error: str = ENGINES_FAILED


Outcome = Page | Failure


@dataclass(frozen=True)
class Site:
    """In the order in which a crawl finds them."""

    outcomes: list[Outcome]
    robots_blocked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, pages: int, base: str = "https://docs.example/") -> "Site":
        return cls([Page(f"{base}page-{number}.html") for number in range(pages)])

    def outcome_of(self, url: str) -> Outcome:
        """A URL that the site does not list is a page too."""
        return next((outcome for outcome in self.outcomes if outcome.url == url), Page(url))
