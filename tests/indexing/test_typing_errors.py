"""A query word that the index does not know is replaced by one that it knows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Text, literal_column, select, text

from crawlscope.database.engine import Database
from crawlscope.indexing import vocabulary
from crawlscope.models import IndexWord
from tests.support.installation import Installation, change_chunking, running_installation
from tests.support.producing import deliver

SITE = "https://docs.example"
PAGES = {
    f"{SITE}/narwhal": "The narwhal inspects every certificate. Call rotateCertificates() before the winter.",
    f"{SITE}/winter": "Winter is cold; the winner is warm. The boiler is inspected by the engineers.",
    f"{SITE}/lama": "The lama explains what a bodhisattva is, and casts a vote at the base.",
    f"{SITE}/haus": "Das Gehäuse wird jeden Morgen geprüft, und der Druck wird in das Buch eingetragen, "
    "bevor die Ingenieure den Kessel anheizen.",
}


@pytest.fixture
async def here(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(database, tmp_path) as installation:
        pages = [
            {"markdown": words, "metadata": {"sourceURL": url, "url": url}} for url, words in PAGES.items()
        ]
        await deliver(database, "crawl-1", "crawl.page", pages, at=datetime.now(UTC))
        await installation.work()
        yield installation


async def corrected(here: Installation, query: str) -> str | None:
    return (await here.search(query)).corrected_query


async def test_a_misspelt_word_is_corrected_and_the_answer_says_so(here: Installation) -> None:
    response = await here.search("narhwal certificate")
    assert response.corrected_query == "narwhal certificate"
    assert [result.url for result in response.results] == [f"{SITE}/narwhal"]
    assert await corrected(here, "Narwhl, certificate?") == "narwhal, certificate?"
    assert await corrected(here, "rotatCertificates") == "rotatecertificates"
    assert await corrected(here, "Gehause gepruft") is None  # the same words without their accents
    assert await corrected(here, "Gehäusse") == "gehäuse"


async def test_what_the_index_knows_stays_as_it_is(here: Installation) -> None:
    for query in (
        "narwhal",
        "winner",
        "inspecting engineer",
        "the",
        "nar",
        "犬",
        "xylophone",
        "wintry 2024",
        "消费税率法案",
    ):
        assert await corrected(here, query) is None
    assert await corrected(here, "wintor") == "winter"  # two pages have it, one has `winner`
    assert await corrected(here, "narwhol boilor wintor colt warn cerd") is None


async def test_words_of_a_language_that_the_index_does_not_have_stay_as_they_are(here: Installation) -> None:
    for query in ("¿Cómo se llama un voto bodhisattva?", "¿En qué se basa la Constitución de Victoria?"):
        assert await corrected(here, query) is None
    assert await corrected(here, "the llama and his voto") == "the lama and his vote"


async def test_phrases_and_exclusions_are_taken_as_written(here: Installation) -> None:
    response = await here.search("wintor -narwhal")
    assert response.corrected_query == "winter"
    assert [result.url for result in response.results] == [f"{SITE}/winter"]


async def test_a_new_index_counts_its_own_words_and_a_dropped_one_has_none(
    here: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def words(generation_id: int) -> set[str]:
        async with database.transaction() as connection:
            return await vocabulary.known_among(connection, generation_id, {"narwhal", "winter"})

    assert await words(1) == {"narwhal", "winter"}
    monkeypatch.setattr("crawlscope.indexing.generations.lifecycle.DROP_AFTER_SECONDS", 0.0)
    change_chunking(monkeypatch)
    await here.reindex()
    await here.words.write()
    await here.lifecycle.advance()
    assert (await words(1), await words(2)) == (set(), {"narwhal", "winter"})
    assert await corrected(here, "narhwal") == "narwhal"


async def test_words_of_one_document_are_forgotten_when_there_are_too_many(
    here: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "MAX_WORDS", 5)
    async with database.transaction() as connection:
        await vocabulary.forget_rare(connection, 1)
        assert await vocabulary.known_among(connection, 1, {"narwhal", "winter"}) == {"winter"}
    assert await corrected(here, "narwhal") is None  # the index still knows it


async def test_a_common_word_is_written_seldom_and_half_of_its_documents_count_at_least(
    database: Database, tmp_path: Path
) -> None:
    async with running_installation(database, tmp_path) as here:
        writes = set[int]()
        for number in range(1, 71):
            here.words.count(1, "The unicorn")
            await here.words.write()
            async with database.transaction() as connection:
                row = (
                    await connection.execute(
                        select(IndexWord.documents, literal_column("xmin::text", Text).label("xmin")).where(
                            IndexWord.generation_id == 1, IndexWord.word == "unicorn"
                        )
                    )
                ).one()
            assert number / 2 < row.documents <= number
            writes.add(row.xmin)
        assert len(writes) == 7  # at 1, 2, 4 … 64 documents


async def test_words_that_could_not_be_written_are_written_later(
    here: Installation, database: Database
) -> None:
    async def known() -> set[str]:
        async with database.transaction() as connection:
            return await vocabulary.known_among(connection, 1, {"unicorn", "mermaid"})

    here.words.count(1, "The unicorn")
    async with database.transaction() as connection:
        await connection.execute(text("LOCK TABLE webhook.index_words"))
        writing = asyncio.create_task(here.words.write())
        with pytest.raises(TimeoutError):  # as when the process is stopped meanwhile
            await asyncio.wait_for(writing, 0.2)
    here.words.count(1, "The mermaid")
    assert await known() == set()
    await here.words.write()
    assert await known() == {"unicorn", "mermaid"}
