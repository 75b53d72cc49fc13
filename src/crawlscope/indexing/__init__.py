"""Brings documents into the index: `IndexingService`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crawlscope.indexing.service import DocumentMetadata, IndexDocumentRequest, IndexingService

__all__ = ["DocumentMetadata", "IndexDocumentRequest", "IndexingService"]


def __getattr__(name: str) -> Any:
    """Imported when needed: most modules of this folder need neither models nor the index's engine."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crawlscope.indexing import service  # noqa: PLC0415

    return getattr(service, name)
