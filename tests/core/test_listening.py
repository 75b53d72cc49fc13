"""A port is shared by the processes of one service only."""

import pytest

from crawlscope.core.errors import SettingsError
from crawlscope.core.listening import bound_socket, held_port


def test_processes_share_a_port_that_is_held_for_them() -> None:
    with held_port("127.0.0.1", 0) as port:
        for _ in range(2):
            with bound_socket("127.0.0.1", port, shared=True) as one:
                one.listen()


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_of_another_service_is_not_shared(shared: bool) -> None:
    with bound_socket("127.0.0.1", 0, shared=shared) as other:
        other.listen()
        assert_refused(other.getsockname()[1])


def test_a_port_that_is_held_for_others_is_refused_before_they_listen() -> None:
    with held_port("127.0.0.1", 0) as port:
        assert_refused(port)
        with bound_socket("127.0.0.1", port, shared=True):
            assert_refused(port)
        assert_refused(port)


def assert_refused(port: int) -> None:
    with (
        pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"),
        held_port("127.0.0.1", port),
    ):
        pass
