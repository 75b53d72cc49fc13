"""What is known of a crawl: facts, the fold over them, and the session row that keeps its result."""
