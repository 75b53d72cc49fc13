"""Alembic's scripts; run through `crawlscope.database.schema`."""
