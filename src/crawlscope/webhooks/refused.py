"""Deliveries that are turned away: why, and how that is told without a line for each of them."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

LINE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Cause(StrEnum):
    """Stored with the request, by which it is counted. Nothing of the body of a stranger's is."""

    NO_CREDENTIALS = "no_credentials"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - the cause's name
    BAD_SIGNATURE = "bad_signature"
    NO_SIGNING_SECRET = "no_signing_secret"  # noqa: S105
    """It is signed, and no secret is set that could tell whether rightly."""
    WRONG_TOKEN = "wrong_token"  # noqa: S105
    NO_TOKEN = "no_token"  # noqa: S105
    """It came by a URL with a token, and none is set."""
    WRONG_PATH = "wrong_path"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    UNREADABLE = "unreadable"
    MALFORMED = "malformed"
    UNAVAILABLE = "unavailable"
    """It could not be committed: the database is away, or the disk nearly full."""


BY_STATUS = {
    400: Cause.UNREADABLE,
    404: Cause.WRONG_PATH,
    405: Cause.WRONG_PATH,
    413: Cause.TOO_LARGE,
    415: Cause.WRONG_TYPE,
    422: Cause.MALFORMED,
    503: Cause.UNAVAILABLE,
}
"""Where nobody knows better."""


@dataclass
class _Told:
    at: float
    since: int = 0


class RefusalLog:
    """At most one line per minute and cause, with how many there were since the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: defaultdict[Cause, _Told] = defaultdict(lambda: _Told(-LINE_SECONDS))

    def note(self, cause: Cause, status: int, sender: str | None, reason: str | None) -> None:
        told = self._told[cause]
        told.since += 1
        if self._clock() - told.at < LINE_SECONDS:
            return
        further = {"reason": reason} if reason else {}
        log.warning(
            "delivery_refused", cause=cause.value, status=status, sender=sender, count=told.since, **further
        )
        self._told[cause] = _Told(self._clock())
