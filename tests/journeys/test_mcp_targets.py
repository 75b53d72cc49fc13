"""MCP clients may not crawl private addresses, not even on the same machine."""

import pytest

from tests.support.fakes.website import Website, html
from tests.support.mcp_clients import answered, connect_to
from tests.support.stack import Stack


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_private_address_is_not_crawled(quick_stack: Stack, transport: str):
    with Website({"/": html("<h1>Internal</h1>")}) as site:
        async with connect_to(quick_stack, transport)() as client:
            text, state = await answered(client, "crawl", url=f"{site.url}/", wait=True)
        assert site.requests == []
    assert (state["status"], state["safe_to_search"], state["sealed"]) == ("failed", False, True)
    assert "Nothing to search" in text
    assert "private" in state["error_message"]
