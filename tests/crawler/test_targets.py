import asyncio
import socket
from typing import Any

import httpcore2
import pytest

from crawlscope.crawler import targets
from crawlscope.crawler.targets import PrivateTarget, PublicNetwork, is_public
from tests.crawler.harness import crawl
from tests.support.fakes.website import Page, Website, html, redirect


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *(
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "fe80::1%eth0",
            "fc00::1",
            "fd00:ec2::254",
        ),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"),
        "5f00::1",
        *(
            "::7f00:1",
            "::808:808",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1::808:808",
            "fec0::1",
            "5f00::1",
            "ff0e::1",
        ),
    ],
)
def test_private(address: str) -> None:
    assert not is_public(address)


@pytest.fixture
def second_loopback_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """The websites of these tests pass for public ones."""
    monkeypatch.setattr(targets, "is_public", lambda address: address == "127.0.0.1")


@pytest.mark.usefixtures("second_loopback_is_private")
async def test_a_start_that_is_redirected_to_a_private_address_is_not_followed() -> None:
    with Website() as site:
        site.pages = {"/": redirect(f"http://127.0.0.2:{site.port}/latest/meta-data")}
        crawled = await crawl(site.url, allow_private=False)
        assert site.requests == ["/"]
    assert crawled.failures == {
        "/": "127.0.0.2 is a private address; 127.0.0.2 may not be crawled; "
        "CRAWLSCOPE_ALLOW_PRIVATE_TARGETS permits it, `crawlscope crawl` needs no permission"
    }
    assert crawled.types[-1] == "crawl.failed"


@pytest.mark.usefixtures("second_loopback_is_private")
async def test_a_sitemap_at_a_private_address_is_not_asked_for() -> None:
    with Website({"/": html(), "/map.xml": Page("<urlset/>")}) as site:
        site.pages["/robots.txt"] = Page(f"Sitemap: http://127.0.0.2:{site.port}/map.xml")
        crawled = await crawl(site.url, allow_private=False)
        assert site.requests == ["/"]
    assert crawled.types[-1] == "crawl.completed"


def answers(*turns: list[str]) -> Any:
    """A resolver that says something else each time it is asked."""
    left = list(turns)

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in left.pop(0)]

    return getaddrinfo


@pytest.mark.usefixtures("second_loopback_is_private")
async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers(["127.0.0.1"], ["127.0.0.2"]))
    with Website({"/": html()}) as site:
        stream = await PublicNetwork().connect_tcp("rebinding.test", site.port, timeout=2)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", site.port)
        await stream.aclose()
        with pytest.raises(PrivateTarget, match=r"127\.0\.0\.2 is a private address"):
            await PublicNetwork().connect_tcp("rebinding.test", site.port, timeout=2)


async def test_the_private_addresses_of_a_public_name_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def connect(_: object, host: str, *__: object, **___: object) -> None:
        asked.append(host)
        raise httpcore2.ConnectError("nobody there")

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect)
    addresses = ["10.0.0.1", "8.8.4.4", "127.0.0.1", "8.8.8.8"]
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers(addresses))
    with pytest.raises(httpcore2.ConnectError, match="nobody there"):
        await PublicNetwork().connect_tcp("mixed.test", 80, timeout=2)
    assert asked == ["8.8.4.4", "8.8.8.8"]
