"""Foreign input by the thousand: `python -m tests.fuzz`."""
