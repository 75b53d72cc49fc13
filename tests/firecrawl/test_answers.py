"""What Firecrawl's answers can say, and what is made of it."""

from datetime import UTC, datetime

import pytest

from crawlscope.firecrawl.answers import JobStatus


@pytest.mark.parametrize(
    "nothing", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z"]
)
def test_what_other_programs_write_for_no_time_is_none(nothing: str) -> None:
    answer = {"status": "completed", "total": 1, "completed": 1, "createdAt": nothing}
    told = JobStatus.model_validate({**answer, "completedAt": "2026-01-31T12:00:00+01:00"})
    assert (told.created_at, told.completed_at) == (None, datetime(2026, 1, 31, 11, tzinfo=UTC))
