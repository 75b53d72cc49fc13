"""An index and the documents in it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import SCHEMA, Base, crawl_reference, now


class IndexGeneration(Base):
    """One index with the embedder of its vectors; see `indexing.generations`."""

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
    """The name of the folder or collection."""
    fingerprint: Mapped[str]
    """The fingerprint of embedder, encoder and chunking."""
    embedder: Mapped[dict[str, Any]]
    """The description of the embedder, without secrets."""
    chunk_tokens: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    """`filling`, `serving`, `retired` or `dropped`."""
    problem: Mapped[str | None]
    """A fault of the index, or the reason why the reindexing waits."""
    created_at: Mapped[datetime] = now()
    made_at: Mapped[datetime | None]
    """The time at which its folder or collection was created."""
    switched_at: Mapped[datetime | None]
    """The time at which searches started to use it."""
    retired_at: Mapped[datetime | None]


class Document(Base):
    """The content of an index for one URL."""

    __tablename__ = "documents"

    generation_id: Mapped[int] = mapped_column(
        ForeignKey(f"{SCHEMA}.index_generations.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[UUID] = mapped_column(primary_key=True)
    """A hash of `url`."""
    url: Mapped[str]
    content_hash: Mapped[str]
    """The SHA-256 of title, language and cleaned text."""
    fingerprint: Mapped[str]
    """The fingerprint of the embedder and the chunking of its chunks."""
    chunks: Mapped[int]
    crawl_id: Mapped[str | None] = mapped_column(String(255))
    """The crawl that delivered this content."""
    language: Mapped[str] = mapped_column(String(8), server_default=text("''"))
    """The primary tag of the language that the text is written in; empty if unknown."""
    indexed_at: Mapped[datetime] = now()
    revision: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """The number of contents so far. In an index that is being built: the revision that was indexed."""
    error: Mapped[str | None]
    """The reason why this index lacks the document, although the index before has it."""


class DocumentContent(Base):
    """The content of a document that a program brought. The index can be rebuilt from it."""

    __tablename__ = "document_contents"

    key: Mapped[UUID] = mapped_column(primary_key=True)
    """A hash of the document's URL."""
    revision: Mapped[int]
    """The revision of the document with this content. After another revision, a page replaced it."""
    crawl_id: Mapped[str | None] = mapped_column(String(255))
    """The crawl or import that it was brought for."""
    title: Mapped[str | None]
    language: Mapped[str | None]
    markdown: Mapped[bytes]
    """Compressed with zstd."""
    stored_at: Mapped[datetime] = now()


class IndexWord(Base):
    """A word of the documents of an index, for the correction of queries."""

    __tablename__ = "index_words"
    __table_args__ = (Index("ix_index_words_reversed", "generation_id", "reversed"),)

    generation_id: Mapped[int] = mapped_column(
        ForeignKey(f"{SCHEMA}.index_generations.id", ondelete="CASCADE"), primary_key=True
    )
    word: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    """In lower case."""
    reversed: Mapped[str] = mapped_column(Text(collation="C"))
    documents: Mapped[int]
    """The number of documents with the word, as counted when they were prepared: a document that was prepared
    again counts again, and a common word only in part."""


class DocumentCrawl(Base):
    """The crawls that found a document."""

    __tablename__ = "document_crawls"

    document_key: Mapped[UUID] = mapped_column(primary_key=True)
    crawl_id: Mapped[str] = crawl_reference(primary_key=True, index=True)
    found_at: Mapped[datetime] = now()
