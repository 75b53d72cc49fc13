"""The files of exported pages, and the memory that an export needs."""

import re
import tracemalloc
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath

from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.insights.export import markdown_file
from crawlscope.insights.schemas import ExportedPage
from crawlscope.insights.service import Insights
from tests.support.producing import A, deliver, deliver_pages, document

HOSTILE = [
    "https://a.example/../../etc/passwd",
    "https://a.example/%2e%2e/%2e%2e/etc/passwd",
    "https://a.example/..\\..\\windows",
    "https://a.example/C:/x",
    "https://a.example//",
    "https://a.example/" + "x" * 5_000,
    "https://a.example/" + "a/" * 500,
    "https://a.example/\0\n\x1b[2J",
    "https://a.example/" + "語" * 300,
    "https://con/nul/aux.txt",
    "../../../x",
    "/etc/passwd",
    "",
    "https://[half",
]


def page(url: str, text: str | None = "Text.") -> ExportedPage:
    empty = dict.fromkeys(ExportedPage.model_fields)
    known = {"state": PageState.INDEXED, "attempts": 1, "received_at": datetime(2026, 1, 31, tzinfo=UTC)}
    return ExportedPage.model_validate(
        {**empty, **known, "url": url, "final_url": url, "stages": {}, "text": text}
    )


def path_of(url: str) -> str:
    file = markdown_file(page(url))
    assert file is not None
    return file[0]


@given(
    st.text(max_size=300).map(lambda rest: f"https://a.example/{rest}") | st.sampled_from(HOSTILE) | st.text()
)
def test_the_path_of_a_file_is_safe_whatever_the_url(url: str):
    path = path_of(url)

    for kind in (PurePosixPath, PureWindowsPath):
        assert not kind(path).is_absolute()
        assert not kind(path).drive
        assert not {"..", ".", ""} & set(kind(path).parts)
    for part in path.split("/"):
        assert len(part.encode()) <= 255
        assert not re.search(r'[<>:"\\|?*\x00-\x1f]', part)
        assert not part.endswith((".", " "))
        assert part.split(".")[0].lower() not in ("con", "nul", "aux", "prn", "com1", "lpt1")
    assert len(path.encode()) < 2_000


@given(st.text(max_size=50), st.text(max_size=50))
def test_two_pages_have_two_files_also_where_case_does_not_count(one: str, other: str):
    assert (path_of(f"{A}{one}").casefold() == path_of(f"{A}{other}").casefold()) == (one == other)


def test_a_file_begins_with_the_facts_of_its_page():
    file = markdown_file(page("https://docs.example.com/guide/queues"))
    assert file is not None
    assert re.fullmatch(r"docs.example.com/guide/queues-[0-9a-f]{12}.md", file[0])
    assert file[1].decode() == (
        '---\nurl: "https://docs.example.com/guide/queues"\nfinal_url: "https://docs.example.com/guide/queues"\n'
        'title: null\nlanguage: null\nstate: "indexed"\nsettled_at: null\n---\n\nText.\n'
    )
    assert markdown_file(page("https://docs.example.com/", text=None)) is None


async def test_an_export_needs_no_memory_for_the_crawl(database: Database, insights: Insights):
    for number in range(40):
        text = f"{number} " + "word " * 200_000
        await deliver(database, "crawl-1", "crawl.page", [{**document(f"{A}{number}"), "markdown": text}])

    async def export() -> int:
        size = 0
        async with insights.exported("crawl-1") as (total, batches):
            assert total == 40
            async for batch in batches:
                size += sum(len(each.text or "") for each in batch)
        return size

    tracemalloc.start()
    try:
        size = await export()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 40_000_000
    assert peak < size / 2


async def test_an_export_reads_few_large_bodies_at_once(database: Database, insights: Insights):
    html = {"rawHtml": "<p>Word.</p>" * 100_000}
    for number in range(6):
        await deliver(database, "crawl-1", "crawl.page", [{**document(f"{A}{number}"), **html}])
    async with insights.exported("crawl-1") as (_, batches):
        assert [len(batch) async for batch in batches] == [3, 3]


async def test_an_export_is_of_one_moment(database: Database, insights: Insights):
    await deliver_pages(database, "crawl-1", *(f"{A}{number}" for number in range(120)))

    urls: list[str] = []
    async with insights.exported("crawl-1") as (total, batches):
        async for batch in batches:
            urls += [each.url for each in batch]
            await deliver_pages(database, "crawl-1", f"{A}late/{len(urls)}")

    assert urls == [f"{A}{number}" for number in range(120)]
    assert total == 120
