"""Search: the query, the ranking of pages, and the passages that are shown."""
