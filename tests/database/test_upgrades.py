"""A database of each former version, with what it recorded, has the same numbers after an upgrade.

`tests/record_schemas.py` made the databases: the version of the time ran, and said what it knew.
"""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from crawlscope.database import revision, schema
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.sessions.recount import recount
from tests.conftest import administer, named
from tests.record_schemas import SCHEMAS, WAITING
from tests.support.producing import index_pages

REVISIONS = sorted(path.name.partition(".")[0] for path in SCHEMAS.glob("*.sql.gz"))


QUICK = {REVISIONS[0], REVISIONS[len(REVISIONS) // 2]}
OF_THE_MOMENT = {"verdict", "eta", "progress", "awaits"}
ESTIMATED = {"operations", "queue_wait"}
"""Percentiles come from histograms since they are kept, whose buckets are 2 % wide."""


def quick_or_slow(name: str) -> Any:
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture
async def old_database(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Database]:
    """As the version of this revision left it."""
    name = f"revision_{request.param}"
    await administer(postgres_url, f"CREATE DATABASE {name}")
    connection = await asyncpg.connect(named(postgres_url, name))
    await connection.execute(gzip.decompress((SCHEMAS / f"{request.param}.sql.gz").read_bytes()).decode())
    await connection.close()
    opened = Database.open(named(postgres_url, name))
    yield opened
    await opened.close()
    await administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("old_database", list(map(quick_or_slow, REVISIONS)), indirect=True)
async def test_an_upgrade_keeps_every_number(old_database: Database) -> None:
    found = await revision.current_revision(old_database)
    answers = json.loads(gzip.decompress((SCHEMAS / f"{found}.json.gz").read_bytes()))
    await schema.upgrade(old_database)
    await revision.require_current(old_database)
    for crawl_id, before in answers.items():
        async with old_database.transaction() as connection:
            assert await recount(connection, crawl_id) == {}
        crawl = (await Insights(old_database).crawl(crawl_id)).model_dump(mode="json")
        pages = (await Insights(old_database).pages(crawl_id, limit=1000)).model_dump(mode="json")
        assert_same(before["crawl"], crawl)
        for page_before, page in zip(before["pages"], pages["pages"], strict=True):
            assert_same(page_before, page)
    assert await index_pages(old_database, WAITING) == 1, "the page that waited still waits"


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compares the columns that the version before knew."""
    for name in before.keys() - OF_THE_MOMENT:
        if name in ESTIMATED:
            assert_about_the_same(before[name], after[name])
        else:
            assert (name, known(after[name], before[name])) == (name, before[name])


def known(after: Any, before: Any) -> Any:
    """The answer of the version before: it had fewer fields."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {name: known(after.get(name), value) for name, value in before.items()}
    return after


def assert_about_the_same(before: Any, after: Any) -> None:
    if isinstance(before, dict):
        for name in before.keys() & after.keys():
            assert_about_the_same(before[name], after[name])
    elif before is not None:
        assert after == pytest.approx(before, rel=0.02)
