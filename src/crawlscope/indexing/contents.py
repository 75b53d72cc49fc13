"""The SQL of the contents that programs bring: documents without a page, with which the index is rebuilt."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ARRAY, Uuid, any_, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.compression import DamagedBody, compress, decompress
from crawlscope.core.in_thread import in_thread
from crawlscope.core.values import hash_key, storable
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest

CONTENTS = models.table_of(models.DocumentContent)


@dataclass(frozen=True)
class KnownContent:
    is_current: bool
    """Whether the document still has it: versions before 0028 replace documents without their contents."""
    crawl_id: str | None
    """The crawl or import that it was brought for."""

    def covers(self, crawl_id: str | None) -> bool:
        """Whether nothing is new if the same content is brought again."""
        return self.is_current and (self.crawl_id is None or crawl_id is not None)

    @property
    def is_independent(self) -> bool:
        """Whether the document stays when no crawl has found it."""
        return self.is_current and self.crawl_id is None


async def save_content(
    connection: AsyncConnection, document: IndexDocumentRequest, revision: int, crawl_id: str | None
) -> None:
    """`revision` is that of the document with this content."""
    metadata = document.metadata or DocumentMetadata(url=document.url)
    values = {
        "revision": revision,
        "crawl_id": crawl_id,
        "title": metadata.title and storable(metadata.title),
        "language": metadata.language and storable(metadata.language),
        "markdown": await in_thread(compress, document.markdown.encode(errors="surrogatepass")),
        "stored_at": func.now(),
    }
    added = insert(CONTENTS).values(key=hash_key(document.url), **values)
    replaced = {name: added.excluded[name] for name in values}
    await connection.execute(added.on_conflict_do_update(index_elements=[CONTENTS.c.key], set_=replaced))


async def find_content(connection: AsyncConnection, url: str, revision: int) -> IndexDocumentRequest | None:
    """None if no program brought this revision of the document, or its content is damaged."""
    found = select(CONTENTS.c.title, CONTENTS.c.language, CONTENTS.c.markdown).where(
        CONTENTS.c.key == hash_key(url), CONTENTS.c.revision == revision
    )
    row = (await connection.execute(found)).one_or_none()
    if row is None:
        return None
    try:
        markdown = (await in_thread(decompress, row.markdown)).decode(errors="surrogatepass")
    except DamagedBody:
        return None
    metadata = DocumentMetadata(url=url, title=row.title, language=row.language)
    return IndexDocumentRequest(url=url, markdown=markdown, metadata=metadata)


async def delete_contents(connection: AsyncConnection, urls: Iterable[str]) -> None:
    keys = any_(cast([hash_key(url) for url in urls], ARRAY(Uuid)))
    await connection.execute(delete(CONTENTS).where(CONTENTS.c.key == keys))
