"""A page is found by its title, and search shows its newest title."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from crawlscope.database.engine import Database
from crawlscope.models import Page
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.installation import Installation, running_installation
from tests.support.producing import deliver

URL = "https://docs.example/rotate"
TEXT = "Press the button twice. " * 60


@pytest.fixture
async def here(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(database, tmp_path) as installation:
        yield installation


@pytest.fixture
def server(here: Installation) -> FakeEmbeddingServer:
    return here.server


async def bring(here: Installation, crawl_id: str, **metadata: object) -> str:
    document = {"markdown": TEXT, "metadata": {"sourceURL": URL, "url": URL, "statusCode": 200, **metadata}}
    await deliver(here.database, crawl_id, "crawl.page", [document])
    await here.work()
    async with here.database.transaction() as connection:
        return str(await connection.scalar(select(Page.state).where(Page.crawl_id == crawl_id)))


async def test_every_chunk_is_found_by_the_title(here: Installation, server: FakeEmbeddingServer) -> None:
    assert await bring(here, "crawl-1", title="Ocelot signing certificates") == "indexed"
    response = await here.search("ocelot certificates")
    [result] = response.results
    assert result.title == "Ocelot signing certificates"
    assert "Ocelot" not in result.text
    assert result.passages
    embedded = [text for request in server.requests for text in request.texts if "button" in text]
    assert embedded
    assert all(text.startswith("Ocelot signing certificates\n\nPress") for text in embedded)


async def test_a_new_title_is_shown_if_the_text_is_the_same(here: Installation) -> None:
    await bring(here, "crawl-1", title="Ocelot signing certificates")
    assert await bring(here, "crawl-2", title="Ocelot signing certificates") == "unchanged"
    assert await bring(here, "crawl-3", title="Lynx signing certificates") == "indexed"
    assert await here.found("ocelot") == []
    [result] = (await here.search("lynx")).results
    assert (result.title, result.crawl_ids) == (
        "Lynx signing certificates",
        ["crawl-1", "crawl-2", "crawl-3"],
    )


def embedded(server: FakeEmbeddingServer) -> list[str]:
    return [text for request in server.requests for text in request.texts if "button" in text]


async def test_a_new_title_has_one_chunk_embedded_again(
    here: Installation, server: FakeEmbeddingServer
) -> None:
    await bring(here, "crawl-1", title="Ocelot certificates")
    before = embedded(server)
    assert len(before) > 1
    await bring(here, "crawl-2", title="Lynx certificates")
    [again] = embedded(server)[len(before) :]
    assert again == before[0].replace("Ocelot", "Lynx")
    assert (await here.found("lynx"), await here.found("ocelot")) == ([URL], [])


async def test_a_title_with_another_text_has_every_chunk_embedded_again(
    here: Installation, server: FakeEmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring(here, "crawl-1", title="Ocelot certificates")
    before = embedded(server)
    monkeypatch.setattr(f"{__name__}.TEXT", TEXT.replace("twice", "thrice"))
    await bring(here, "crawl-2", title="Lynx certificates")
    assert len(embedded(server)) == 2 * len(before)


async def test_a_new_language_is_found_if_the_text_is_the_same(here: Installation) -> None:
    await bring(here, "crawl-1", title="Ocelot", language="de")
    await bring(here, "crawl-2", title="Ocelot", language="en-GB")
    [result] = (await here.search("ocelot")).results
    assert result.language == "en"
