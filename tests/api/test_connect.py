"""A program connects to a service at a URL."""

import pytest
from structlog.testing import capture_logs

import crawlscope


@pytest.mark.parametrize(
    ("url", "warnings"),
    [
        ("http://0.0.0.0:1", [{"event": "secret_exposed", "url": "http://0.0.0.0:1"}]),
        ("https://0.0.0.0:1", []),
        ("http://127.0.0.1:1", []),
        ("http://[::1]:1", []),
    ],
)
async def test_a_secret_that_others_can_read_is_warned_of(url: str, warnings: list[dict[str, str]]) -> None:
    with capture_logs() as logs, pytest.raises(crawlscope.ServiceUnavailable):
        async with crawlscope.connect(url, "a-secret"):
            pass
    assert logs == [{**warning, "log_level": "warning"} for warning in warnings]
