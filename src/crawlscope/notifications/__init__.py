"""Notifications of crawls: detected, put into an outbox in the database, sent as Standard Webhooks."""
