"""The state of a crawl: facts, the fold over them, and the session row that stores its result."""
