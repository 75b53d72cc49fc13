"""When a notification is sent again, and when it is given up: pure rules, no I/O.

The pauses are those that the Standard Webhooks specification proposes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

PAUSES_SECONDS: Sequence[float] = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""After the first attempt, the second, and so on: eight attempts within about 28 hours."""
JITTER = 0.2
"""Pauses are longer by up to this part, so that many notifications do not come back at once."""


@dataclass(frozen=True)
class Reply:
    """What came of an attempt; without a status nothing was answered."""

    status: int | None
    error: str | None = None
    """None for one that was accepted."""
    retry_after_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus(300)


def pause_before_next(
    attempts: int, reply: Reply, pauses_seconds: Sequence[float] = PAUSES_SECONDS
) -> float | None:
    """Seconds after the failure of the last of so many attempts; None: it is given up."""
    if reply.status == HTTPStatus.GONE or attempts > len(pauses_seconds):
        return None
    own = pauses_seconds[attempts - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - spreads load
    return max(own, reply.retry_after_seconds or 0.0)
