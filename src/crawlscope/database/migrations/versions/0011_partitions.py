"""Operations and requests are partitioned by month, so that an old month is dropped at once.

The present rows stay where they are: their table becomes the first partition, from the beginning of time to
the end of this month. The server reads it once to verify that; nothing is copied. The way back copies all
rows into one table.
"""

from datetime import datetime
from itertools import pairwise

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MONTHS = 3
FORMER_KEYS = {"operation_metrics": "id, timestamp", "request_metrics": "id"}
KEY = "id, timestamp"
INDEXES = {
    "operation_metrics": {
        "timestamp": "(timestamp)",
        "job_id": "(job_id)",
        "crawl_id": "(crawl_id)",
        "document_url": "USING hash (document_url)",
    },
    "request_metrics": {"timestamp": "(timestamp)"},
}
"""By column, besides the index of the key."""
REFERENCE = """
    ADD CONSTRAINT fk_operation_metrics_crawl_id_crawl_sessions
    FOREIGN KEY (crawl_id) REFERENCES webhook.crawl_sessions (crawl_id) ON DELETE SET NULL
"""


def upgrade() -> None:
    op.execute("SET LOCAL timezone TO 'UTC'")
    for table, former_key in FORMER_KEYS.items():
        _rename(table, f"{table}_before")
        op.execute(
            f"CREATE TABLE webhook.{table} (LIKE webhook.{table}_before INCLUDING DEFAULTS) "
            "PARTITION BY RANGE (timestamp)"
        )
        _add_indexes(table, KEY)
        op.execute(f"CREATE TABLE webhook.{table}_default PARTITION OF webhook.{table} DEFAULT")
        _take_over_rows(table, former_key)


def _take_over_rows(table: str, former_key: str) -> None:
    """Those of the future, which a wrong clock has made, go to their own partitions."""
    before = f"webhook.{table}_before"
    is_empty = op.get_bind().scalar(sa.text(f"SELECT NOT EXISTS (SELECT FROM {before})"))
    months = list(
        op.get_bind().scalars(
            sa.text(
                "SELECT date_trunc('month', now()) + month * interval '1 month' "
                f"FROM generate_series({0 if is_empty else 1}, {MONTHS}) month"
            )
        )
    )
    for since, until in pairwise(months):
        op.execute(
            f"CREATE TABLE webhook.{table}_{since:%Y_%m} PARTITION OF webhook.{table} {_bounds(since, until)}"
        )
    if is_empty:
        op.execute(f"DROP TABLE {before}")
        return
    op.execute(
        f"WITH moved AS (DELETE FROM {before} WHERE timestamp >= '{months[0]}' RETURNING *) "
        f"INSERT INTO webhook.{table} SELECT * FROM moved"
    )
    if former_key != KEY:
        op.execute(f"ALTER TABLE {before} DROP CONSTRAINT pk_{table}_before")
        op.execute(f"ALTER TABLE {before} ADD CONSTRAINT pk_{table}_before PRIMARY KEY ({KEY})")
    op.execute(f"ALTER TABLE webhook.{table} ATTACH PARTITION {before} {_bounds(None, months[0])}")


def _bounds(since: datetime | None, until: datetime) -> str:
    begin = f"'{since}'" if since else "MINVALUE"
    return f"FOR VALUES FROM ({begin}) TO ('{until}')"


def downgrade() -> None:
    for table, former_key in FORMER_KEYS.items():
        partitioned = f"{table}_partitioned"
        _rename(table, partitioned)
        op.execute(f"CREATE TABLE webhook.{table} (LIKE webhook.{partitioned} INCLUDING DEFAULTS)")
        op.execute(f"INSERT INTO webhook.{table} SELECT * FROM webhook.{partitioned}")
        op.execute(f"DROP TABLE webhook.{partitioned}")
        _add_indexes(table, former_key)


def _rename(table: str, name: str) -> None:
    """Also its indexes, whose names the new table needs."""
    op.execute(f"ALTER TABLE webhook.{table} RENAME TO {name}")
    op.execute(f"ALTER TABLE webhook.{name} RENAME CONSTRAINT pk_{table} TO pk_{name}")
    for column in INDEXES[table]:
        op.execute(f"ALTER INDEX webhook.ix_{table}_{column} RENAME TO ix_{name}_{column}")


def _add_indexes(table: str, key: str) -> None:
    op.execute(f"ALTER TABLE webhook.{table} ADD CONSTRAINT pk_{table} PRIMARY KEY ({key})")
    for column, definition in INDEXES[table].items():
        op.execute(f"CREATE INDEX ix_{table}_{column} ON webhook.{table} {definition}")
    if table == "operation_metrics":
        op.execute(f"ALTER TABLE webhook.{table} {REFERENCE}")
