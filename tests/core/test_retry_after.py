from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from crawlscope.api.http.errors import unavailable
from crawlscope.core.errors import FirecrawlUnavailable
from crawlscope.core.retry_after import retry_after_seconds

A_DAY = 86_400


@pytest.mark.parametrize(("header", "seconds"), [("0", 0), ("120", 120), (" 7 ", 7), (str(A_DAY), A_DAY)])
def test_seconds(header: str, seconds: float) -> None:
    assert retry_after_seconds(header) == seconds


@pytest.mark.parametrize(("minutes", "seconds"), [(10, 600), (-10, 0)])
def test_a_date(minutes: int, seconds: float) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    found = retry_after_seconds(format_datetime(moment, usegmt=True))
    assert found == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("header", [None, "", " ", "soon", "-5", "1.5", "nan", "inf", "²"])
def test_what_cannot_be_read(header: str | None) -> None:
    assert retry_after_seconds(header) is None


@pytest.mark.parametrize("header", ["86401", "86400000", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_nobody_is_kept_waiting_for_more_than_a_day(header: str) -> None:
    seconds = retry_after_seconds(header)
    assert seconds == A_DAY
    assert unavailable(FirecrawlUnavailable("busy", retry_after=seconds)).headers["retry-after"] == str(A_DAY)
