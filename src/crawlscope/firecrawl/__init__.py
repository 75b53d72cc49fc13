"""Firecrawl's API, and the parsing of the documents that it delivers or returns."""
