"""The header `Retry-After`."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_SECONDS = 86_400.0
"""Without a limit, a server could delay the next request by years."""


def retry_after_seconds(header: str | None) -> float | None:
    """Seconds to wait, at most a day, from a number of seconds or an HTTP date; None if it is neither."""
    if not header:
        return None
    try:
        if header.strip().isdecimal():
            seconds = float(header)
        else:
            moment = parsedate_to_datetime(header)
            seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_SECONDS)
