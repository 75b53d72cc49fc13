"""Runs migrations on the connection that `crawlscope.database.schema` hands over."""

import re
from typing import Any

from alembic import context

from crawlscope.models import SCHEMA, Base

PARTITION = r"(operation|request)_metrics_(\d+_\d\d|before|default)"


def ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Leaves the queue's schema, partitions and whatever else lives in the database out of comparisons."""
    if kind == "table" and name:
        return not re.fullmatch(PARTITION, name)
    return name == SCHEMA if kind == "schema" else True


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_schemas=True,
    include_name=ours,
    compare_type=True,
    compare_server_default=True,
    version_table_schema="public",
    version_table="crawlscope_alembic_version",
)
with context.begin_transaction():
    context.run_migrations()
