"""Firecrawl's own API: starting, cancelling and asking after crawls."""
