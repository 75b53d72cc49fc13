"""Pages that come without Markdown: what can be read is read, and what cannot says so."""

from typing import Any

import pytest
from sqlalchemy import select, text

from crawlscope.models import Page, PageContent
from tests.support.installation import Installation
from tests.support.producing import deliver

URL = "https://docs.example/kiln"
HTML = "<h1>Kiln schedule</h1><p>Bisque firing reaches <b>nine hundred</b> degrees.</p>"


async def bring(here: Installation, crawl_id: str, **page: Any) -> None:
    metadata = {"sourceURL": URL, "url": URL, "statusCode": 200}
    await deliver(here.database, crawl_id, "crawl.page", [{**page, "metadata": metadata}])
    await here.work()


async def outcome(here: Installation) -> tuple[str, str | None, str | None]:
    async with here.database.transaction() as connection:
        return tuple((await connection.execute(select(Page.state, Page.error_code, Page.error))).one())  # type: ignore[return-value]


@pytest.mark.parametrize(
    "page",
    [
        {"html": HTML},
        {"rawHtml": f"<!doctype html><html><body>{HTML}</body></html>"},
        {"markdown": "", "html": HTML},
        {"markdown": " \n\t", "html": " ", "rawHtml": HTML},
        {"html": "<div><p> </p></div>", "rawHtml": HTML},
        {"markdown": None, "content": "", "html": HTML},
        {"markdown": ["odd"], "html": HTML},
    ],
)
async def test_a_page_without_markdown_is_read_from_its_html(
    here: Installation, page: dict[str, Any]
) -> None:
    await bring(here, "crawl-1", **page)
    assert await outcome(here) == ("indexed", None, None)
    assert await here.found("bisque") == [URL]
    async with here.database.transaction() as connection:
        kept = await connection.scalar(select(PageContent.markdown))
    assert kept is not None
    assert "reaches **nine hundred** degrees." in kept
    await here.reindex()
    assert await here.found("bisque") == [URL]


async def test_the_same_html_again_is_unchanged(here: Installation) -> None:
    await bring(here, "crawl-1", html=HTML)
    await bring(here, "crawl-2", html=HTML)
    async with here.database.transaction() as connection:
        states = await connection.scalars(select(Page.state).order_by(Page.crawl_id))
    assert list(states) == ["indexed", "unchanged"]


async def test_markdown_is_taken_before_html(here: Installation) -> None:
    await bring(here, "crawl-1", markdown="Glaze firing.", html=HTML)
    assert await here.found("glaze") == [URL]
    assert await here.found("bisque") == []
    async with here.database.transaction() as connection:
        assert await connection.scalar(text("SELECT html FROM webhook.page_contents")) == ""


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ({"summary": "All about kilns.", "json": {"degrees": 900}}, "neither Markdown nor HTML"),
        ({"markdown": ""}, "neither Markdown nor HTML"),
        ({"markdown": "---\n\n* * *"}, "no word is left of the page's Markdown"),
        ({"html": "<div><img src='a.png'></div>"}, "its HTML has no text"),
    ],
)
async def test_a_page_without_text_says_so(here: Installation, page: dict[str, Any], reason: str) -> None:
    await bring(here, "crawl-1", **page)
    state, code, words = await outcome(here)
    assert (state, code) == ("empty", "no_text")
    assert words is not None
    assert reason in words
