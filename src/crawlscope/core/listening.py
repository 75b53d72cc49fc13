"""A TCP socket on the address that a service is configured with."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from crawlscope.core.errors import SettingsError

CANNOT_LISTEN = "cannot listen on"


def bound_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that is bound but does not listen yet; port 0 lets the system choose.

    `shared`: other processes of this user may listen on the port as well, and the system distributes the
    connections. Raises `OSError` if the address is in use or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only on sockets that name their protocol; others answer 40 ms late.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def service_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """As `bound_socket`. Raises `SettingsError` with what to do."""
    try:
        return bound_socket(host, port, shared=shared)
    except OSError as error:
        raise SettingsError(
            f"{CANNOT_LISTEN} {host}:{port}: {error.strerror}; "
            "stop what uses it or set CRAWLSCOPE_PORT (and CRAWLSCOPE_HOST)"
        ) from None


@contextmanager
def held_port(host: str, port: int) -> Iterator[int]:
    """Keeps a port for processes that share it, without listening. Raises `SettingsError` if it is in use:
    one that shares a port with a service of others would get a part of its connections."""
    service_socket(host, port).close()
    with service_socket(host, port, shared=True) as holder:
        # Bound with this option despite connections of before; without it, the port is in use although
        # nobody listens yet: two services that start at the same time would share it.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield holder.getsockname()[1]


def reachable_url(host: str, port: int) -> str:
    """An address at which this machine reaches the service."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared only
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"
