"""An index and the documents in it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import SCHEMA, Base, crawl_reference, now


class IndexGeneration(Base):
    """One index, and how the vectors in it are made; see `indexing.generations`."""

    __tablename__ = "index_generations"
    __table_args__ = (
        Index(
            "uq_index_generations_live",
            "state",
            unique=True,
            postgresql_where=text("state IN ('serving', 'filling')"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(unique=True)
    """Of the folder or collection."""
    fingerprint: Mapped[str]
    """Of embedder, encoder and chunking."""
    embedder: Mapped[dict[str, Any]]
    """What it takes to open the same embedder again, without secrets."""
    chunk_tokens: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    """`filling`, `serving`, `retired` or `dropped`."""
    problem: Mapped[str | None]
    """What is wrong with it, or what its filling waits for."""
    created_at: Mapped[datetime] = now()
    made_at: Mapped[datetime | None]
    """When its folder or collection was made."""
    switched_at: Mapped[datetime | None]
    """When searches began to use it."""
    retired_at: Mapped[datetime | None]


class Document(Base):
    """What an index holds under one URL."""

    __tablename__ = "documents"

    generation_id: Mapped[int] = mapped_column(
        ForeignKey(f"{SCHEMA}.index_generations.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[UUID] = mapped_column(primary_key=True)
    """A hash of `url`."""
    url: Mapped[str]
    content_hash: Mapped[str]
    """Of title, language and cleaned text."""
    fingerprint: Mapped[str]
    """Of the embedder and the chunking that made its chunks."""
    chunks: Mapped[int]
    crawl_id: Mapped[str | None] = mapped_column(String(255))
    """The crawl that brought this content."""
    indexed_at: Mapped[datetime] = now()
    revision: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """Counts its contents; in an index that is being filled, the one it was made from."""
    error: Mapped[str | None]
    """Why the index holds nothing of it, though an earlier one did."""


class DocumentCrawl(Base):
    """Which crawls found a document."""

    __tablename__ = "document_crawls"

    document_key: Mapped[UUID] = mapped_column(primary_key=True)
    crawl_id: Mapped[str] = crawl_reference(primary_key=True, index=True)
    found_at: Mapped[datetime] = now()
