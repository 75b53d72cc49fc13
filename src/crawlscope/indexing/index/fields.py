"""The names of a chunk's vectors and of the payload fields that filters match, in every index."""

DENSE = "dense"
BM25 = "bm25"
KEYWORD_FIELDS = ("domain", "crawl_ids", "language", "url_prefixes")
"""Payload fields that are matched as a whole; one element of a list has to match."""
PREFIX_FIELD = "url"
"""The payload field that is matched by its beginning."""
