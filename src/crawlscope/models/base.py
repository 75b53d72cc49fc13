"""The common base of all tables (PostgreSQL, schema `webhook`)."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import BigInteger, DateTime, ForeignKey, MetaData, String, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "webhook"


class Base(DeclarativeBase):
    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map = {  # noqa: RUF012 - read once by SQLAlchemy when the class is made
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(),
        int: BigInteger(),
    }


def table_of(model: type[Base]) -> Table:
    """The table behind a model: statements on it cost half of those that go through the mapper."""
    return cast(Table, model.__table__)


def count() -> Mapped[int]:
    """A number that starts at 0."""
    return mapped_column(default=0, server_default=text("0"))


def total() -> Mapped[float]:
    """A sum that starts at 0."""
    return mapped_column(default=0.0, server_default=text("0"))


def now() -> Mapped[datetime]:
    """The time at which the row was written."""
    return mapped_column(server_default=func.now())


def crawl_reference(**options: Any) -> Mapped[str]:
    """The crawl that the row belongs to and is deleted with."""
    return mapped_column(
        String(255), ForeignKey(f"{SCHEMA}.crawl_sessions.crawl_id", ondelete="CASCADE"), **options
    )
