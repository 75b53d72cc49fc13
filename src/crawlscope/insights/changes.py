"""How a page differs between two crawls, from rows of the database."""

from collections.abc import Mapping
from typing import Any

from crawlscope.core.errors import PageError
from crawlscope.core.vocabulary import ChangeKind
from crawlscope.indexing.clean import clean
from crawlscope.insights.schemas import PageChange, PageVersion, TextDiff
from crawlscope.insights.text_diff import diff

STILL_RUNNING = "the crawl still runs: which pages are removed is known at its end"
MAX_CHARACTERS = 1_000_000
"""The maximum length of each text that is compared."""


def page_change(row: Mapping[Any, Any]) -> PageChange:
    """From a row of `change_queries`."""
    now, before = (
        PageVersion(**{name: row[f"{side}_{name}"] for name in PageVersion.model_fields})
        if row[f"{side}_id"] is not None
        else None
        for side in ("now", "before")
    )
    url = row["now_source_url"] or row["before_source_url"]
    return PageChange(url=url, kind=ChangeKind(row["kind"]), now=now, before=before)


def compared_texts(
    contents: Mapping[str, str | None], before: str, now: str
) -> tuple[TextDiff | None, str | None]:
    """The diff of a page's Markdown in two crawls, by crawl id, or the reason why there is none. Takes up to
    seconds."""
    for crawl_id in (before, now):
        if crawl_id not in contents:
            return None, f"crawl {crawl_id} has no such page"
        if contents[crawl_id] is None:
            return None, f"no text is kept of the page in crawl {crawl_id}: none came, or it was deleted"
    old, new = contents[before] or "", contents[now] or ""
    try:
        found = diff(clean(old[:MAX_CHARACTERS]), clean(new[:MAX_CHARACTERS]))
    except PageError as error:
        return None, f"the texts cannot be compared: {error}"
    found.is_cut |= max(len(old), len(new)) > MAX_CHARACTERS
    return found, None
