"""A crawl: its request, cancellation, deletion and comparison with Firecrawl."""
