"""Tells others what happens to crawls: an outbox in the database, sent as Standard Webhooks."""
