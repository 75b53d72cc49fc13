"""Which of several deliveries of a page wins: pure rules, no I/O."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, order=True)
class Arrival:
    """One delivery of a page, as far as it decides which of several wins: the greater one.

    A success beats a failure, and of two failures the one that tells more wins. What was delivered beats what
    was fetched from the crawler's API; of two alike the one received last wins, then the greater webhook id.
    """

    usable: bool
    """Whether it brought content to index, not a failure."""
    precision: int
    """How much it tells of the cause of a failure; see `causes.precision`."""
    pushed: bool
    """Whether it was delivered, not fetched."""
    received_at: datetime
    webhook_id: str
