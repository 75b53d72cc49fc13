"""Firecrawl's possible answers, and the values that are read from them."""

from datetime import UTC, datetime

import pytest

from crawlscope.firecrawl.schemas import MAX_COUNT, JobErrors, JobStatus


@pytest.mark.parametrize(
    "nothing", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z"]
)
def test_what_other_programs_write_for_no_time_is_none(nothing: str) -> None:
    answer = {"status": "completed", "total": 1, "completed": 1, "createdAt": nothing}
    status = JobStatus.model_validate({**answer, "completedAt": "2026-01-31T12:00:00+01:00"})
    assert (status.created_at, status.completed_at) == (None, datetime(2026, 1, 31, 11, tzinfo=UTC))


@pytest.mark.parametrize("odd", ["", "yesterday", [], {"seconds": 5}, "2026-13-45"], ids=str)
def test_an_unreadable_time_keeps_no_answer_from_being_read(odd: object) -> None:
    times = {"createdAt": odd, "completedAt": odd, "expiresAt": odd}
    status = JobStatus.model_validate({"status": "completed", **times})
    assert (status.created_at, status.completed_at, status.expires_at) == (None, None, None)
    failed = {"url": "https://a.example/", "timestamp": odd, "code": 7, "error": {"code": "SCRAPE_TIMEOUT"}}
    [failure] = JobErrors.model_validate({"errors": [failed], "robotsBlocked": [None, "b", 3]}).errors
    assert (failure.at, failure.code, failure.error) == (None, None, {"code": "SCRAPE_TIMEOUT"})


@pytest.mark.parametrize(("sent", "read"), [(-1, 0), (10**30, MAX_COUNT), (None, 0), ("7", 7)])
def test_counts_are_such_as_can_be_kept(sent: object, read: int) -> None:
    answer = JobStatus.model_validate({"status": "scraping", "total": sent, "completed": sent})
    assert (answer.total, answer.completed) == (read, read)
