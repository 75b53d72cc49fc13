"""Keeps crawls out of private networks, whatever names, redirects or DNS servers say."""

import asyncio
import ipaddress
import socket
import unicodedata
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

import httpcore2

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".home.arpa")
_LOOKUP_SECONDS = 5.0
_SocketOptions = Iterable[httpcore2.SOCKET_OPTION] | None


class PrivateTarget(httpcore2.ConnectError):
    """A name that leads only to addresses that are not on the public internet."""


def is_public(address: str) -> bool:
    """IPv4 addresses inside IPv6 ones (mapped, 6to4, NAT64) are judged by themselves."""
    found: IPv4Address | IPv6Address | None = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found in _NAT64:
            found = IPv4Address(int(found) & 0xFFFF_FFFF)
        else:
            found = found.ipv4_mapped or found.sixtofour or found
    return found is not None and found.is_global and not found.is_multicast


class PublicNetwork(httpcore2.AnyIOBackend):
    """Resolves a name once and connects to the very address that was checked: DNS cannot change its mind."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await _resolve(host, port, timeout)
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise PrivateTarget(f"{addresses[0]} is a private address; {host} may not be crawled")
        for address in public[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await super().connect_tcp(public[-1], port, timeout, local_address, socket_options)


async def require_public(url: str) -> None:
    """For a URL that another crawler fetches: raises `PrivateTarget` where it leads to a private address.

    Only as far as can be told here and now. A name that cannot be looked up here passes, unless it is of a
    kind that is never public: it may be known where it is fetched.
    """
    host = _host_as_fetched(url)
    if host is None or _is_never_public(host):
        raise PrivateTarget(f"{host or url} is no name of the public internet; it may not be crawled")
    try:
        addresses = await _resolve(host, 0, _LOOKUP_SECONDS)
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
        return
    for address in addresses:
        if not is_public(address):
            raise PrivateTarget(f"{address} is a private address; {host} may not be crawled")


def _host_as_fetched(url: str) -> str | None:
    """As browsers read it; None for what they read in another way than Python does."""
    parts = urlsplit(url)
    host = unicodedata.normalize("NFKC", parts.hostname or "").replace("\u3002", ".").rstrip(".")
    return None if "\\" in parts.netloc or "%" in host else host


def _is_never_public(host: str) -> bool:
    return ":" not in host and ("." not in host or host.endswith(_PRIVATE_DOMAINS))


async def _resolve(host: str, port: int, timeout: float | None) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise httpcore2.ConnectTimeout(f"the name {host} could not be resolved in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
