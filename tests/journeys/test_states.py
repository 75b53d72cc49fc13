"""After any sequence of requests, the service has the state of its model."""

import pytest

from tests.states import check
from tests.support.stack import Stack


@pytest.mark.parametrize("sequences", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_random_requests_leave_what_the_model_says(quick_stack: Stack, sequences: int) -> None:
    check(quick_stack, sequences, steps=12, derandomize=True)
