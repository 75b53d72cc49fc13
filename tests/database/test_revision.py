from alembic.script import ScriptDirectory

from crawlscope.database import revision, schema
from crawlscope.database.engine import Database


def test_the_newest_revision_is_that_of_the_newest_migration():
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == revision.NEWEST


async def test_tables_and_models_agree(database: Database):
    await schema.check(database)
    await revision.require_current(database)


async def test_every_migration_can_be_taken_back(database: Database):
    await schema.downgrade(database, "base")
    assert await revision.current_revision(database) is None
    await schema.upgrade(database)
    assert await revision.current_revision(database) == revision.NEWEST
    await schema.downgrade(database)
    await schema.upgrade(database)
    await schema.check(database)
