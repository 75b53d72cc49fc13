"""When a process that ended is started again: the rule of every supervisor."""

from dataclasses import dataclass

from crawlscope.core.backoff import backoff

FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A process that lived longer did not die of its start."""


@dataclass
class Restarts:
    """Counts how often one process ended."""

    failures: int = 0
    """In a row; a steady run begins a new row."""
    was_steady: bool = False

    def delay_after(self, lived_seconds: float) -> float:
        """Counts one more end of the process; returns the seconds until its next start."""
        steady = lived_seconds > STEADY_SECONDS
        self.was_steady = self.was_steady or steady
        self.failures = 1 if steady else self.failures + 1
        return backoff(self.failures, first_seconds=FIRST_DELAY_SECONDS, max_seconds=MAX_DELAY_SECONDS)
