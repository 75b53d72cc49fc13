"""When a notification is sent again, and when it is given up: pure rules, no I/O.

The delays are those that the Standard Webhooks specification proposes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

DELAYS_SECONDS: Sequence[float] = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""After the first attempt, the second, and so on: eight attempts within about 28 hours."""
JITTER = 0.2
"""Delays are longer by up to this part, so that many notifications do not come back at once."""


@dataclass(frozen=True)
class Reply:
    """The result of an attempt; without a status there was no answer."""

    status: int | None
    error: str | None = None
    """None for an accepted notification."""
    retry_after_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus(300)


def delay_before_next(
    attempts: int, reply: Reply, delays_seconds: Sequence[float] = DELAYS_SECONDS
) -> float | None:
    """Seconds until the next one after so many failed attempts; None to give up."""
    if reply.status == HTTPStatus.GONE or attempts > len(delays_seconds):
        return None
    own = delays_seconds[attempts - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - spreads load
    return max(own, reply.retry_after_seconds or 0.0)
