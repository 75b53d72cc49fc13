"""Migrations leave what the version before them reads and writes: both run side by side during an upgrade."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database import revision, schema
from crawlscope.database.engine import Database

SCRIPTS = ScriptDirectory(str(schema.MIGRATIONS))
FIRST = "0022"
"""The promise begins with the versions of this revision."""
PROMISED = [script.revision for script in SCRIPTS.iterate_revisions("head", FIRST)]
COLUMNS = text("""
    SELECT c.relname || '.' || a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace IN ('webhook'::regnamespace, 'queue'::regnamespace)
        AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
""")
RULES = text("""
    SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'webhook'::regnamespace AND conparentid = 0 AND contype IN ('c', 'u', 'x', 'f', 'p')
    UNION
    SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace = 'webhook'::regnamespace AND indisunique AND NOT indisprimary
""")


BUILD = re.compile(r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*\bON (?!ONLY)(webhook\.\w+)")
"""Others that write wait for it."""


@contextmanager
def tables_locked_by_builds() -> Iterator[list[str]]:
    """Those on which an index is built while nobody can write."""
    found = list[str]()

    def note(*given: Any) -> None:
        found.extend(BUILD.findall(given[2]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def columns(connection: AsyncConnection) -> dict[str, Any]:
    return {row.name: row for row in await connection.execute(COLUMNS)}


async def rules(connection: AsyncConnection) -> set[str]:
    """The constraints of a row."""
    return set(await connection.scalars(RULES))


def table_of(column: str) -> str:
    return column.partition(".")[0]


@pytest.mark.parametrize("name", PROMISED)
async def test_the_version_before_a_migration_works_with_its_tables(
    own_database: Database, name: str
) -> None:
    script = SCRIPTS.get_revision(name)
    assert str(script.module.serves_from) <= str(script.down_revision), "see CONTRIBUTING.md, Migrations"
    unused = getattr(script.module, "unused", ())
    """Columns that the version before does not use any more."""
    await schema.downgrade(own_database, str(script.down_revision))
    async with own_database.transaction() as connection:
        before, rules_before = await columns(connection), await rules(connection)
    with tables_locked_by_builds() as locked:
        await schema.upgrade(own_database, name)
    async with own_database.transaction() as connection:
        after, rules_after = await columns(connection), await rules(connection)
    kept = {column for column in before if column not in unused}
    assert not kept - after.keys(), "it drops or renames columns"
    assert not [column for column in kept if before[column].type != after[column].type], "it changes types"
    tables = {table_of(column) for column in before}
    assert not {f"webhook.{each}" for each in tables} & set(locked), "see migrations/indexes.py"
    others = [column for column in after.keys() - before.keys() if table_of(column) in tables]
    assert not [column for column in others if after[column].required], "new columns need a default, or NULL"
    assert not [each for each in kept if after[each].required and not before[each].required]
    new_rules = {
        rule for rule in rules_after - rules_before if any(f"webhook.{each} " in rule for each in tables)
    }
    assert not new_rules, "rows that the version before writes need not satisfy these"


def test_the_promise_covers_the_newest_revision() -> None:
    assert PROMISED[0] == revision.NEWEST
