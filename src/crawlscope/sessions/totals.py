"""Which operations a crawl keeps a total of."""

from crawlscope.core.vocabulary import OperationType

TOTALLED = {
    OperationType.CHUNKING: "total_chunking_ms",
    OperationType.EMBEDDING: "total_embedding_ms",
    OperationType.QDRANT: "total_qdrant_ms",
    OperationType.BM25: "total_bm25_ms",
}
"""Operation types and the session's columns."""
