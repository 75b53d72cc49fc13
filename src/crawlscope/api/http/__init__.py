"""The routes of the HTTP API, and what every request passes through."""
