"""The routes of the HTTP API, and the middleware of every request."""
