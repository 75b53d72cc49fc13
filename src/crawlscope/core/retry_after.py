"""How long a server asks to wait."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86_400.0
"""Whoever asks for more is not believed: it would be asked again years later, or never."""


def retry_after_seconds(header: str | None) -> float | None:
    """From `Retry-After`: seconds or an HTTP date, a day at most; None where nothing readable is said."""
    if not header:
        return None
    try:
        seconds = float(header) if header.strip().isdecimal() else _seconds_until(header)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_SECONDS)


def _seconds_until(http_date: str) -> float:
    moment = parsedate_to_datetime(http_date)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
