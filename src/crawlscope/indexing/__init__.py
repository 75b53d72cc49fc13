"""Brings documents into the index: `IndexingService`."""

from crawlscope.indexing.service import DocumentMetadata, IndexDocumentRequest, IndexingService

__all__ = ["DocumentMetadata", "IndexDocumentRequest", "IndexingService"]
