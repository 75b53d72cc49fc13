from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from crawlscope.database import revision, schema
from crawlscope.database.engine import Database


async def require_agreement(database: Database) -> None:
    """Raises `CommandError` when models and migrations differ."""

    def check(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.check(config)

    async with database.transaction() as connection:
        await connection.run_sync(check)


def test_the_newest_revision_is_that_of_the_newest_migration():
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == revision.NEWEST


async def test_tables_and_models_agree(own_database: Database):
    await require_agreement(own_database)
    await revision.require_current(own_database)


async def test_every_migration_can_be_taken_back(own_database: Database):
    await schema.downgrade(own_database, "base")
    assert await revision.current_revision(own_database) is None
    await schema.upgrade(own_database)
    assert await revision.current_revision(own_database) == revision.NEWEST
    await schema.downgrade(own_database)
    await schema.upgrade(own_database)
    await require_agreement(own_database)
