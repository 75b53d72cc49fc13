"""The running processes, and how each is composed."""
