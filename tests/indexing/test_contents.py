"""What programs bring is stored with what crawls find: a rebuilt index has the same documents."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from crawlscope.core.errors import NotFoundError
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest
from crawlscope.indexing.service import FoundDocument
from crawlscope.models import DocumentContent
from tests.support.installation import Installation, running_installation

URL = "https://wiki.example/plan"
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def here(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(database, tmp_path) as installation:
        yield installation


async def bring(
    here: Installation, markdown: str, crawl_id: str | None = None, title: str | None = "Prices"
) -> str:
    metadata = DocumentMetadata(url=URL, title=title)
    document = IndexDocumentRequest(url=URL, markdown=markdown, metadata=metadata)
    return str((await here.indexing.index_document(document, crawl_id=crawl_id))["state"])


async def find(here: Installation, crawl_id: str, markdown: str, at: datetime = NOW) -> None:
    await here.crawl(crawl_id, URL, at, words=markdown)


async def forget(here: Installation, crawl_id: str) -> None:
    await here.database.run(lambda connection: delete_crawl(connection, crawl_id, here.indexing))


async def stored(here: Installation) -> list[tuple[datetime, str | None]]:
    async with here.database.transaction() as connection:
        rows = await connection.execute(select(DocumentContent.stored_at, DocumentContent.crawl_id))
        return [(row.stored_at, row.crawl_id) for row in rows]


async def shown(here: Installation) -> list[tuple[str, str | None, str]]:
    results = (await here.search("narwhal")).results
    return [(result.title, result.language, result.text) for result in results]


Steps = Callable[[Installation], Awaitable[object]]


async def a_program(here: Installation) -> None:
    await bring(here, "The first narwhal.", "import", title="Old")
    await bring(here, "# New\n\nThe second narwhal.\x00\ud800", title=None)


async def a_program_after_a_crawl(here: Installation) -> None:
    await find(here, "monday", "The first narwhal.")
    await bring(here, "The second narwhal.")


async def a_program_and_then_a_crawl(here: Installation) -> None:
    await bring(here, "The first narwhal.")
    await find(here, "monday", "The second narwhal.")
    assert await stored(here) == [], "it is stored as a page"


async def a_late_crawl(here: Installation) -> None:
    await find(here, "monday", "The first narwhal.", NOW - HOUR)
    await bring(here, "The second narwhal.")
    await find(here, "late", "The narwhal of yesterday.", NOW - 24 * HOUR)


async def a_program_after_the_page_was_gone(here: Installation) -> None:
    await here.crawl("monday", URL, NOW - HOUR, 404)
    await bring(here, "The second narwhal.")


async def a_program_whose_document_a_deleted_crawl_found(here: Installation) -> None:
    await bring(here, "The second narwhal.")
    await find(here, "monday", "The second narwhal.")
    await forget(here, "monday")


@pytest.mark.parametrize(
    "steps",
    [
        a_program,
        a_program_after_a_crawl,
        a_program_and_then_a_crawl,
        a_late_crawl,
        a_program_after_the_page_was_gone,
        a_program_whose_document_a_deleted_crawl_found,
    ],
)
async def test_a_rebuilt_index_shows_what_was_brought_last(here: Installation, steps: Steps) -> None:
    await steps(here)
    [before] = await shown(here)
    assert "second narwhal" in before[2]
    await here.reindex()
    assert await shown(here) == [before]


async def test_the_same_content_is_not_written_again(here: Installation) -> None:
    assert await bring(here, "The narwhal.") == "indexed"
    first = await stored(here)
    assert await bring(here, "The narwhal.", "import") == "unchanged"
    assert await stored(here) == first
    assert await bring(here, "Another narwhal.", "import") == "indexed"
    assert (await stored(here))[0][1] == "import"
    assert await bring(here, "Another narwhal.") == "unchanged"
    assert (await stored(here))[0][1] is None, "no crawl takes it away any more"


@pytest.mark.parametrize(
    "remove",
    [
        lambda here: here.indexing.remove_document(URL),
        lambda here: bring(here, "  "),
        lambda here: here.crawl("monday", URL, datetime.now(UTC) + HOUR, 410),
        lambda here: forget(here, "import"),
    ],
)
async def test_a_document_leaves_with_its_content(here: Installation, remove: Steps) -> None:
    await bring(here, "The narwhal.", "import")
    await remove(here)
    assert (await here.found(), await stored(here)) == ([], [])
    with pytest.raises(NotFoundError):
        await here.indexing.remove_document(URL)


class Killed(Exception):
    """The process dies before it commits what it has put into the index."""


async def put_in_and_die(here: Installation, markdown: str) -> None:
    document = IndexDocumentRequest(url=URL, markdown=markdown)
    found = FoundDocument(await here.indexing.prepare(document), brought=document)
    with suppress(Killed):
        async with here.database.transaction() as connection:
            await here.indexing.store(connection, [found])
            raise Killed
    assert [text for _, _, text in await shown(here)] == [markdown]


async def test_after_a_death_before_the_commit_the_index_is_rebuilt_as_it_was(here: Installation) -> None:
    await put_in_and_die(here, "The first narwhal.")
    await here.reindex()
    assert await here.found() == []
    await bring(here, "The first narwhal.")
    await put_in_and_die(here, "The second narwhal.")
    await here.reindex()
    assert [text for _, _, text in await shown(here)] == ["The first narwhal."]


async def test_after_a_death_before_the_commit_the_program_repeats_what_it_asked(here: Installation) -> None:
    await put_in_and_die(here, "The narwhal.")
    with pytest.raises(NotFoundError):
        await here.indexing.remove_document(URL)
    assert await here.found() == []
    await put_in_and_die(here, "The narwhal.")
    assert await bring(here, "The narwhal.") == "indexed"
    await here.reindex()
    assert await here.found() == [URL]


async def test_a_content_that_a_version_before_replaced_is_not_used(here: Installation) -> None:
    """Such a version does not know the table."""
    await bring(here, "The first narwhal.")
    async with here.database.transaction() as connection:
        columns = DocumentContent.markdown, DocumentContent.revision
        first = (await connection.execute(select(*columns))).mappings().one()
    await bring(here, "The second narwhal.")
    async with here.database.transaction() as connection:
        await connection.execute(update(DocumentContent).values(**first))
    await find(here, "monday", "The second narwhal.")
    await here.reindex()
    assert [text for _, _, text in await shown(here)] == ["The second narwhal."]
    await forget(here, "monday")
    assert await here.found() == []
