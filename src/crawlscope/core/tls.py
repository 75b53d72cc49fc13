"""Whom this process trusts when it connects over TLS."""

import ssl
from functools import cache

import httpx2


@cache
def trusted() -> ssl.SSLContext:
    """The authorities of the system or of `SSL_CERT_FILE`. Reading them takes longer than most requests, so
    all clients of HTTP/1.1 share them.
    """
    return httpx2.create_ssl_context()
