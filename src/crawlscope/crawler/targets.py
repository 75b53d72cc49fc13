"""Keeps crawls out of private networks, for every name, redirect and DNS answer."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import ada_url
import httpcore2

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out; everything else is local, reserved, or an old way to write IPv4 addresses."""
_PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".home.arpa")
_NO_NAME = re.compile(r":|(?:^|\.)\d[^.]*$")
"""No top-level domain begins with a digit; to browsers such a name is an address, or none."""
_LOOKUP_SECONDS = 5.0
_LOOKUPS_AT_ONCE = 4
"""Fewer than the process's threads for blocking calls."""
PERMISSION = "CRAWLSCOPE_ALLOW_PRIVATE_TARGETS permits it, `crawlscope crawl` needs no permission"
_SocketOptions = Iterable[httpcore2.SOCKET_OPTION] | None


class PrivateTarget(httpcore2.ConnectError):
    """A name that leads only to addresses that are not on the public internet."""


def is_public(address: str) -> bool:
    """IPv4 addresses inside IPv6 ones (mapped, 6to4, NAT64) are judged by themselves."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = IPv4Address(int(found) & 0xFFFF_FFFF) if found in _NAT64 else None
        found = inner or found.ipv4_mapped or found.sixtofour or found
    if isinstance(found, IPv6Address) and found not in _GLOBAL_UNICAST:
        return False
    return found.is_global and not found.is_multicast


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
            raise PrivateTarget(
                f"{addresses[0]} is a private address; {host} may not be crawled; {PERMISSION}"
            )
        for address in public[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await super().connect_tcp(public[-1], port, timeout, local_address, socket_options)


async def require_public(urls: Iterable[str]) -> None:
    """Checks URLs that another crawler fetches. Raises `PrivateTarget` if one leads to a private address.

    The check uses the name server of this machine. An unknown name passes, unless its kind is never public,
    because the other crawler may know it. A name whose lookup takes too long does not pass.
    """
    names = []
    for host in dict.fromkeys(map(_host_as_fetched, urls)):
        if address := _spelled_out(host):
            _require_public_address(address, host)
        elif "." not in host or host.endswith(_PRIVATE_DOMAINS) or _NO_NAME.search(host):
            raise _no_public_name(host)
        else:
            names.append(host)
    at_once = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
    try:
        async with asyncio.TaskGroup() as lookups:
            for name in names:
                lookups.create_task(_require_public_name(name, at_once))
    except ExceptionGroup as refusals:
        raise refusals.exceptions[0] from None


async def _require_public_name(name: str, at_once: asyncio.Semaphore) -> None:
    try:
        async with at_once:
            addresses = await _resolve(name, 0, _LOOKUP_SECONDS)
    except httpcore2.ConnectTimeout:
        raise PrivateTarget(
            f"{name} could not be resolved within {_LOOKUP_SECONDS:g} s; it may not be crawled"
        ) from None
    except httpcore2.ConnectError:
        return
    for address in addresses:
        _require_public_address(address, name)


def _require_public_address(address: str, host: str) -> None:
    if not is_public(address):
        raise PrivateTarget(f"{address} is a private address; {host} may not be crawled")


def _no_public_name(host: str) -> PrivateTarget:
    return PrivateTarget(f"{host} is not a name of the public internet; it may not be crawled")


def _host_as_fetched(url: str) -> str:
    """As browsers read it; raises `PrivateTarget` for an address that they do not accept, or that other
    programs may read differently."""
    try:
        host = ada_url.URL(url).hostname.strip("[]").rstrip(".")
    except ValueError:
        host = ""
    if not host or "\\" in url.partition("://")[2].partition("/")[0]:
        raise _no_public_name(url)
    return host


def _spelled_out(host: str) -> str | None:
    """The address that a host is, in any of the spellings that the C library and browsers know."""
    try:
        return str(ipaddress.ip_address(host if ":" in host else socket.inet_aton(host)))
    except (OSError, ValueError):
        return None


async def _resolve(host: str, port: int, timeout: float | None) -> list[str]:
    if address := _spelled_out(host):
        return [address]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise httpcore2.ConnectTimeout(f"the name {host} could not be resolved in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
