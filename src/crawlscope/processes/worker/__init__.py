"""A worker process: takes jobs from the queue, indexes pages and runs the built-in crawler."""
