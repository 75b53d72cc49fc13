"""The numbers of rows of tables that grow without end."""

from sqlalchemy import Identity, String
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base


class RowCount(Base):
    """Rows that a transaction added to a table. All of a table sum up to its number of rows."""

    __tablename__ = "row_counts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    table_name: Mapped[str] = mapped_column(String(63))
    rows: Mapped[int]
    """Negative for removed ones."""
