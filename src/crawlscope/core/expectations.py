"""The expectations of users about the crawls of a site, in their syntax: `pages >= 90 % of the mean of the
last 10`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from crawlscope.core.vocabulary import CrawlNumber

ANY_SITE = "*"
"""In place of a site's URL."""
_NUMBERS = {
    "pages": CrawlNumber.PAGES,
    "failed": CrawlNumber.FAILED,
    "duration": CrawlNumber.DURATION,
    "chunking": CrawlNumber.CHUNKING,
    "embedding": CrawlNumber.EMBEDDING,
    "bm25": CrawlNumber.BM25,
    "qdrant": CrawlNumber.QDRANT,
}
_MILLISECONDS: Mapping[str | None, float] = {"ms": 1.0, "s": 1_000.0, "min": 60_000.0, "h": 3_600_000.0}
_WRITTEN = re.compile(
    rf"(?P<number>{'|'.join(_NUMBERS)})\s*(?P<sign>>=|<=|≥|≤)\s*(?P<bound>\d+(\.\d+)?)\s*(?P<unit>%|ms|s|min|h)?"
    r"(\s+of\s+the\s+(?P<average>mean|median)\s+of\s+the\s+last\s+(?P<last>[1-9]\d?))?"
)


@dataclass(frozen=True)
class Expectation:
    text: str
    number: CrawlNumber
    at_least: bool
    """Else at most."""
    bound: float
    """In the unit of the number; a factor of the average if `last` is set."""
    last: int | None = None
    """So many earlier crawls give the average."""
    of_median: bool = False


def parse_expectation(text: str) -> Expectation:
    """Raises `ValueError` with what must be written instead."""
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            "must be like `pages >= 90 % of the mean of the last 10`, `failed <= 2 %` or `duration <= 30 min`"
        )
    number, unit, last = _NUMBERS[found["number"]], found["unit"], found["last"]
    units: Mapping[str | None, float]
    if last:
        units = {"%": 0.01}
    elif number is CrawlNumber.PAGES:
        units = {None: 1.0}
    elif number is CrawlNumber.FAILED:
        units = {"%": 1.0}
    else:
        units = _MILLISECONDS
    if unit not in units:
        allowed = ", ".join(filter(None, units)) or "no unit"
        raise ValueError(f"must have another unit after {found['bound']}: {allowed}")
    return Expectation(
        text=text.strip(),
        number=number,
        at_least=found["sign"] in (">=", "≥"),
        bound=float(found["bound"]) * units[unit],
        last=int(last) if last else None,
        of_median=found["average"] == "median",
    )
