"""The way of a page into the index; `IndexingService` walks it."""

from crawlscope.indexing.service import DocumentMetadata, IndexDocumentRequest, IndexingService

__all__ = ["DocumentMetadata", "IndexDocumentRequest", "IndexingService"]
