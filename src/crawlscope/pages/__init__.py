"""A page: its deliveries, states, attempts and retries, and the job that indexes it."""
