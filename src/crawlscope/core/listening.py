"""A TCP socket on the address that a service is configured with."""

import socket

CANNOT_LISTEN = "cannot listen on"


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound but does not listen yet; port 0 lets the system choose.

    Raises `OSError` if the address is in use or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only on sockets that name their protocol; others answer 40 ms late.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
