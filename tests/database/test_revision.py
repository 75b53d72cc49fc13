from alembic.script import ScriptDirectory

from crawlscope.database import revision, schema
from crawlscope.database.engine import Database


def test_the_newest_revision_is_that_of_the_newest_migration():
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == revision.NEWEST


async def test_tables_and_models_agree(own_database: Database):
    await schema.check(own_database)
    await revision.require_current(own_database)


async def test_every_migration_can_be_taken_back(own_database: Database):
    await schema.downgrade(own_database, "base")
    assert await revision.current_revision(own_database) is None
    await schema.upgrade(own_database)
    assert await revision.current_revision(own_database) == revision.NEWEST
    await schema.downgrade(own_database)
    await schema.upgrade(own_database)
    await schema.check(own_database)
