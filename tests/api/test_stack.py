"""The service that a command starts for itself."""

import socket
from pathlib import Path

import pytest

from crawlscope.api import stack
from crawlscope.api.stack import Stack
from crawlscope.core.errors import ServiceUnavailable
from crawlscope.core.settings import Settings


def settings_of(data_dir: Path) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir, workers=1, min_free_disk_bytes=0)


@pytest.mark.slow
async def test_a_port_that_is_taken_while_the_service_starts_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = stack._free_port
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(stack, "_free_port", lambda host, preferred: next(ports, None) or choose(host, 0))
        async with Stack(settings_of(tmp_path)) as own:
            await own.bring_up()
            assert own.client.url is not None
            assert not own.client.url.endswith(f":{taken}")


@pytest.mark.slow
async def test_a_port_that_is_always_taken_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(stack, "_free_port", lambda host, preferred: taken)
        async with Stack(settings_of(tmp_path)) as own:
            with pytest.raises(ServiceUnavailable, match=f"cannot listen on 127.0.0.1:{taken}"):
                await own.bring_up()
