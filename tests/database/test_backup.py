"""A backup is one moment of the installation, whole or not there, and restores to the same numbers."""

import asyncio
import stat
import zipfile
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from crawlscope.api.keys.registry import add_key, list_keys
from crawlscope.api.keys.schemas import KeyScope
from crawlscope.core.errors import DatabaseUnavailable, UsageError
from crawlscope.core.secrets import api_secret, local_token
from crawlscope.core.settings import Settings, load_settings
from crawlscope.database import schema
from crawlscope.database.backup import back_up, restore
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.database.revision import require_current
from crawlscope.indexing import documents
from crawlscope.indexing.documents import DocumentCounts
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.schemas import IndexDocumentRequest
from crawlscope.insights.schemas import CrawlMetricsResponse, PageListResponse
from crawlscope.insights.service import Insights
from crawlscope.search.schemas import SearchResult
from crawlscope.sessions.recount import recount
from tests.database.test_row_counts import counted, listed
from tests.support.installation import Installation, running_installation
from tests.support.producing import deliver, deliver_pages, fail_pages, index_pages

CRAWL = "crawl-1"

Records = tuple[CrawlMetricsResponse, PageListResponse, DocumentCounts, list[SearchResult]]


async def record_a_crawl(database: Database) -> None:
    """A page of each kind: indexed, failed, and one that still waits."""
    await deliver_pages(database, CRAWL, "https://example.com/a", "https://example.com/b")
    await index_pages(database, CRAWL)
    await deliver_pages(database, CRAWL, "https://example.com/c")
    await fail_pages(database, CRAWL, "embedding_failed", "no vector")
    await deliver_pages(database, CRAWL, "https://example.com/d")
    await deliver(database, CRAWL, "crawl.completed", success=True)


async def records(database: Database, here: Installation) -> Records:
    insights = Insights(database)
    async with database.transaction() as connection:
        serving = (await generations.live(connection)).serving
        assert serving is not None
        held = await documents.count(connection, serving.id)
    assert (await (await here.opened.index(serving)).size()).chunks == held.chunks
    found = (await here.search("narwhal")).results
    return await insights.crawl(CRAWL), await insights.pages(CRAWL), held, found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, Records]:
    """An installation with a crawl, a backup that was made while more arrived, and what it knew before."""
    folder = tmp_path_factory.mktemp("installation")
    settings, file = load_settings(data_dir=folder / "data"), folder / "backup.zip"

    async def make() -> Records:
        async with connected_database(settings) as database:
            await schema.upgrade(database)
            await record_a_crawl(database)
            async with running_installation(database, folder / "index") as here:
                document = IndexDocumentRequest(url="https://wiki.example/plan", markdown="The narwhal plan.")
                await here.indexing.index_document(document)
                known = await records(database, here)
            urls = [f"https://example.org/{number}" for number in range(20)]
            await asyncio.gather(back_up(settings, file), deliver_pages(database, "crawl-2", *urls))
        return known

    api_secret(settings), local_token(settings)
    return settings, file, asyncio.run(make())


async def test_a_restored_installation_has_the_same_numbers(
    installation: tuple[Settings, Path, Records], tmp_path: Path
) -> None:
    settings, file, known = installation
    restored = load_settings(data_dir=tmp_path / "data")
    backup = await restore(restored, file)
    assert backup.rows["pages"] >= 4
    async with (
        connected_database(restored) as database,
        running_installation(database, tmp_path / "index") as here,
    ):
        await here.reindex()
        crawl, *others = await records(database, here)
        assert crawl.model_dump(exclude={"verdict"}) == known[0].model_dump(exclude={"verdict"})
        assert others == list(known[1:])
        assert len(known[-1]) == 1, "a program brought it"
        assert await listed(database) == await counted(database), "lists know how many there are"
        async with database.transaction() as connection:
            assert await recount(connection, CRAWL) == {}
        assert await index_pages(database, CRAWL) == 1, "the page that waited still waits"
    assert api_secret(restored) == api_secret(settings)
    assert local_token(restored) != local_token(settings), "it is of the machine, not of the backup"
    with pytest.raises(UsageError, match="has rows in crawl_sessions"):
        await restore(restored, file)


async def test_only_its_owner_reads_a_backup(installation: tuple[Settings, Path, Records]) -> None:
    _, file, _ = installation
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir() if each.is_file()] == [file.name], "no draft is left"


async def test_a_backup_replaces_no_file(installation: tuple[Settings, Path, Records]) -> None:
    settings, file, _ = installation
    before = file.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        await back_up(settings, file)
    with pytest.raises(UsageError, match="No such file or directory"):
        await back_up(settings, file.parent / "no-folder" / "backup.zip")
    assert file.read_bytes() == before


async def test_what_is_no_whole_backup_is_refused(
    installation: tuple[Settings, Path, Records], tmp_path: Path
) -> None:
    _, file, _ = installation
    empty = load_settings(data_dir=tmp_path / "data")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UsageError, match="no whole backup"):
        await restore(empty, broken)
    changed = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        dump = archive.getinfo("database.dump")
    changed[dump.header_offset + dump.file_size // 2] ^= 0xFF
    broken.write_bytes(changed)
    with pytest.raises(UsageError, match="no whole backup"):
        await restore(empty, broken)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(broken, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
        dump = packed.getinfo("database.dump")
    changed = bytearray(broken.read_bytes())
    changed[dump.header_offset + 42 : dump.header_offset + 52] = b"\xff" * 10
    broken.write_bytes(changed)
    with pytest.raises(UsageError, match="no whole backup"):
        await restore(empty, broken)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("notes.txt", "hello")
    with pytest.raises(UsageError, match="is no backup"):
        await restore(empty, tmp_path / "other.zip")
    with pytest.raises(UsageError, match="No such file"):
        await restore(empty, tmp_path / "missing.zip")
    assert not empty.data_dir.exists(), "nothing was made"


async def test_a_backup_with_any_byte_changed_gets_a_clear_error(tmp_path: Path) -> None:
    empty = load_settings(data_dir=tmp_path / "data")
    file = tmp_path / "backup.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("database.dump", "x")
        archive.writestr(
            "backup.json",
            '{"version": "9", "revision": "newer", "created_at": "2026-01-31T12:00:00Z", "rows": {}}',
        )
    whole = file.read_bytes()
    for place in range(len(whole)):
        for mask in (0x01, 0x80):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            with pytest.raises(UsageError, match=r"no whole backup|no backup|newer one|backup\.zip: "):
                await restore(empty, file)


async def test_a_key_that_exists_is_not_lost(
    installation: tuple[Settings, Path, Records], tmp_path: Path
) -> None:
    _, file, _ = installation
    settings = load_settings(data_dir=tmp_path / "data")
    async with connected_database(settings) as database:
        await schema.upgrade(database)
        made = await database.run(lambda connection: add_key(connection, "a program", KeyScope.READ))
        with pytest.raises(UsageError, match="has rows in api_keys already"):
            await restore(settings, file)
        assert [key.id for key in (await database.run(list_keys)).keys] == [made.id]


async def test_a_key_that_is_made_during_a_restore_is_not_lost(
    installation: tuple[Settings, Path, Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file, _ = installation
    settings, upgrade = load_settings(data_dir=tmp_path / "data"), schema.upgrade
    async with connected_database(settings) as database:
        await schema.upgrade(database)

        async def meanwhile(restored: Database) -> None:
            await upgrade(restored)
            await database.run(lambda connection: add_key(connection, "a program", KeyScope.READ))

        monkeypatch.setattr("crawlscope.database.backup.schema.upgrade", meanwhile)
        with pytest.raises(UsageError, match="has rows in api_keys already"):
            await restore(settings, file)
        assert [key.name for key in (await database.run(list_keys)).keys] == ["a program"]
        assert await databases(database) == ["crawlscope"]


async def test_a_backup_of_a_newer_version_asks_for_that_version(
    installation: tuple[Settings, Path, Records], tmp_path: Path
) -> None:
    _, file, _ = installation
    newer = tmp_path / "newer.zip"
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(newer, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            copy.writestr(
                name,
                content.replace(b'"revision": "', b'"revision": "9') if name == "backup.json" else content,
            )
    with pytest.raises(UsageError, match="install that version or a newer one"):
        await restore(load_settings(data_dir=tmp_path / "data"), newer)


async def test_a_server_is_backed_up_by_its_own_tools(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, database_url="postgresql://localhost/crawlscope")
    with pytest.raises(UsageError, match="pg_dump"):
        await back_up(settings, tmp_path / "backup.zip")


async def test_a_restore_that_fails_late_leaves_the_database_as_it_was(
    installation: tuple[Settings, Path, Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file, _ = installation
    settings = load_settings(data_dir=tmp_path / "data")
    async with connected_database(settings) as database:
        await schema.upgrade(database)

    async def out_of_space(*_: object) -> None:
        raise DatabaseUnavailable("could not extend file: No space left on device")

    monkeypatch.setattr("crawlscope.database.backup.schema.upgrade", out_of_space)
    with pytest.raises(DatabaseUnavailable, match="No space left"):
        await restore(settings, file)
    monkeypatch.undo()
    async with connected_database(settings) as database:
        await require_current(database)
        assert await databases(database) == ["crawlscope"]
    await restore(settings, file)
    async with connected_database(settings) as database:
        assert (await Insights(database).crawl(CRAWL)).total_pages == 3
        assert await databases(database) == ["crawlscope"]


async def databases(database: Database) -> list[str]:
    """Besides those that each server has."""
    names = text("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
    return list(await database.run(lambda connection: connection.scalars(names)))


async def test_a_restore_ends_the_sessions_of_other_programs(
    installation: tuple[Settings, Path, Records], tmp_path: Path
) -> None:
    """Such as one of `psql`, which somebody left open."""
    _, file, _ = installation
    settings = load_settings(data_dir=tmp_path / "data")
    async with connected_database(settings) as database:
        await schema.upgrade(database)
        other = await asyncpg.connect(database.engine.url.set(drivername="postgresql").render_as_string())
        await restore(settings, file)
        assert await databases(database) == ["crawlscope"]
        assert (await Insights(database).crawl(CRAWL)).total_pages == 3
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await other.fetchval("SELECT 1")
