"""The news of crawls since a reader's last poll, and the order in which their pages settle."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from crawlscope.core.errors import UsageError
from crawlscope.insights.schemas import CrawlState, PageRow

MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, order=True)
class Position:
    """A place in the order in which pages settle; the default is the place before all of them.

    By transaction, because a time is written before its transaction commits: a page could appear behind a
    reader that has passed its time.
    """

    transaction: int = 0
    page_id: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `UsageError`."""
        found = re.fullmatch(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?", text.strip())
        numbers = [int(digits or 0) for digits in found.groups()] if found else []
        if not numbers or max(numbers) > MAX_NUMBER:
            raise UsageError("Last-Event-ID: send the id of an event of this feed, or 0 for all pages")
        return cls(*numbers)

    @classmethod
    def end(cls) -> Self:
        """The place after all pages."""
        return cls(MAX_NUMBER, MAX_NUMBER)

    def __str__(self) -> str:
        return f"{self.transaction}.{self.page_id}"


@dataclass(frozen=True)
class SettledPages:
    """The next pages of a crawl that settled after a position."""

    pages: Sequence[PageRow] = ()
    """In the order in which they settled."""
    position: Position = Position()
    """The reader knows everything up to here, and passes it to read the next ones."""
    is_all: bool = True
    """False if there are further ones, now or when transactions in progress have ended."""


@dataclass(frozen=True)
class News:
    """From one snapshot of the database."""

    states: Mapping[str, CrawlState]
    """The crawls that exist, of those that were asked for; the newest first."""
    settled: Mapping[str, SettledPages]
    horizon: Position
    """No page will appear before this."""
