"""Runs migrations on the connection that `crawlscope.database.schema` hands over."""

import re
from collections.abc import Collection
from typing import Any

from alembic import context, op

from crawlscope.database.revision import VERSION_TABLE
from crawlscope.database.schema import oldest_served
from crawlscope.models import SCHEMA, Base

PARTITION = r"(operation|request)_metrics_(\d+_\d\d|before|default)"


def ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Leaves the queue's schema, partitions and everything else in the database out of comparisons."""
    if kind == "table" and name:
        return not re.fullmatch(PARTITION, name)
    return name == SCHEMA if kind == "schema" else True


def note_oldest_served(*_args: Any, heads: Collection[Any] = (), **_given: Any) -> None:
    """Leaves word for processes of other versions that start, whether they work with the tables."""
    for head in heads:
        oldest = oldest_served(context.script.get_revision(head))
        op.execute(f"COMMENT ON TABLE public.{VERSION_TABLE} IS '{oldest}'")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_schemas=True,
    include_name=ours,
    compare_type=True,
    compare_server_default=True,
    version_table_schema="public",
    version_table=VERSION_TABLE,
    transaction_per_migration=True,
    on_version_apply=note_oldest_served,
)
with context.begin_transaction():
    context.run_migrations()
