"""The keys of programs that use the service."""
