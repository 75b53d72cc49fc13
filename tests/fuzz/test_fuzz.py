"""A share of what `python -m tests.fuzz` gives to every parser of foreign input."""

import time

import pytest

from tests.fuzz.running import run
from tests.fuzz.targets import TARGETS

INPUTS = {
    "deliveries": 60,
    "changes": 60,
    "requests": 60,
    "tools": 20,
    "fetching": 30,
    "html": 100,
    "markdown": 60,
    "firecrawl": 20,
    "watchers": 20,
    "embedders": 60,
    "rerankers": 60,
}
USUAL = 200


@pytest.mark.parametrize("target", TARGETS)
async def test_odd_input_gets_a_clear_answer(target: str, database_url: str) -> None:
    count = INPUTS.get(target, USUAL)
    outcome = await run(target, database_url, 0, count, time.monotonic() + 300)
    assert outcome.inputs == count
    assert not outcome.findings, "\n".join(outcome.findings)
