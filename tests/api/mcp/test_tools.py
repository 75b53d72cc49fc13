"""The tools on both transports, over a service that really runs."""

from dataclasses import replace
from typing import Any

import pytest
from mcp import Client

from tests.api.mcp.conftest import Service
from tests.support.fakes.website import Page, Website, html
from tests.support.mcp_clients import TRANSPORTS, answered, connect_to, over_http, refused, text_of
from tests.support.stack import new_crawl_id, page_event

NOBODY = "nobody-knows-it"
READING = {"crawl_status", "list_crawls", "profile_crawl", "compare_crawls", "search"}
ACTING = {"crawl", "batch_scrape", "cancel_crawl", "retry_failed_pages"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("search", {}, "search: 'query' is missing"),
    ("search", {"query": " "}, "search: 'query': string should have at least 1 character"),
    ("search", {"query": "x", "page": 2}, "search: there is no argument 'page', only query, mode, "),
    ("search", {"query": "x", "limit": "many"}, "search: 'limit': input should be a valid integer"),
    ("search", {"query": "x", "mode": "magic"}, "'hybrid', 'semantic' or 'keyword'"),
    ("search", {"query": ["x"]}, "search: 'query': input should be a valid string"),
    ("crawl", {"url": "docs"}, "cannot crawl 'docs': give a full URL such as https://"),
    ("crawl", {"url": "ftp://docs.example.com"}, "give a full URL"),
    ("crawl", {"url": "https://me:secret@docs.example.com/"}, "without a user name and a password"),
    ("crawl", {"url": "https://x.example", "limit": 0}, "crawl: 'limit': input should be greater"),
    ("crawl", {"url": "https://x.example", "timeout_seconds": -1}, "'timeout_seconds'"),
    ("crawl_status", {"crawl_id": ""}, "crawl_status: 'crawl_id': string should have at least 1"),
    ("profile_crawl", {"crawl_id": "x", "error_offset": -1}, "profile_crawl: 'error_offset'"),
    ("batch_scrape", {"urls": []}, "batch_scrape: 'urls': list should have at least 1 item"),
    ("batch_scrape", {"urls": "https://x.example"}, "batch_scrape: 'urls': input should be a valid list"),
    ("list_crawls", {"limit": 0}, "list_crawls: 'limit'"),
    ("no_such_tool", {}, "no_such_tool"),
]

AS_DELIVERED = "Safe to search: complete as far as was delivered; not compared with Firecrawl."


def otters() -> Website:
    """Three pages and a dead link."""
    return Website(
        {
            "/": html(
                "<h1>Otters</h1><p>Otters float.</p>", title="Otters", links=["/food", "/home", "/gone"]
            ),
            "/food": html("<h1>Food</h1><p>Otters eat shellfish with stones.</p>", title="Food"),
            "/home": html("<h1>Home</h1><p>A holt is where an otter lives.</p>", title="Home"),
        }
    )


def event(crawl_id: str, action: str) -> dict[str, Any]:
    return {
        "success": True,
        "type": f"crawl.{action}",
        "id": crawl_id,
        "webhookId": new_crawl_id(),
        "data": [],
    }


async def crawled(client: Client, url: str) -> str:
    _, state = await answered(client, "crawl", url=url, wait=True)
    crawl_id: str = state["crawl_id"]
    return crawl_id


@pytest.mark.parametrize(("transport", "mode"), TRANSPORTS)
async def test_a_crawl_is_started_waited_for_and_found(mcp_service: Service, transport: str, mode: str):
    reports: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    with otters() as site:
        async with connect_to(mcp_service.stack, transport, mode)() as client:
            result = await client.call_tool(
                "crawl", {"url": f"{site.url}/", "limit": 10, "wait": True}, progress_callback=note
            )
            state = result.structured_content
            assert state is not None
            _, found = await answered(client, "search", query="shellfish", mode="keyword", domain=site.url)

    assert "Safe to search: 1 page failed and cannot be found." in text_of(result)
    assert (state["safe_to_search"], state["sealed"], state["status"]) == (True, True, "completed")
    assert (state["pages_indexed"], state["pages_failed"], state["pages_pending"]) == (3, 1, 0)
    done = [report[0] for report in reports]
    assert done == sorted(set(done))
    assert reports[-1] == (4, 4, "3 of 4 pages indexed, 1 failed")
    [page] = [each for each in found["results"] if each["url"] == f"{site.url}/food"]
    assert page["title"] == "Food"
    assert "stones" in page["text"]
    assert page["score"] > 0
    assert page["crawl_id"] == state["crawl_id"]


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_the_same_tools_everywhere_described_for_programs(mcp_service: Service, transport: str):
    async with connect_to(mcp_service.stack, transport)() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        instructions = client.instructions

    assert set(tools) == READING | ACTING
    assert "never instructions" in (instructions or "")
    for name, tool in tools.items():
        assert tool.title
        assert tool.description
        assert tool.annotations
        assert tool.annotations.read_only_hint is (name in READING)
        assert tool.annotations.destructive_hint is False
        begins = name in ("crawl", "batch_scrape", "retry_failed_pages")
        assert tool.annotations.idempotent_hint is not begins
        assert tool.annotations.open_world_hint is begins
        assert tool.input_schema["additionalProperties"] is False
        assert all(each.get("description") for each in tool.input_schema["properties"].values()), name
        assert tool.output_schema
    assert tools["search"].input_schema["required"] == ["query"]


async def test_the_reason_why_it_is_not_safe_to_search_yet(mcp_service: Service):
    crawl_id, stack = new_crawl_id(), mcp_service.stack
    stack.post_event(event(crawl_id, "started"))
    stack.post_event(page_event(crawl_id))
    stack.settled(crawl_id)
    async with over_http(stack.url) as client:
        text, state = await answered(client, "crawl_status", crawl_id=crawl_id)
        waited, _ = await answered(client, "crawl_status", crawl_id=crawl_id, wait=True, timeout_seconds=0.6)
        stack.post_event(event(crawl_id, "completed"))
        _, ended = await answered(client, "crawl_status", crawl_id=crawl_id, wait=True)

    assert (state["safe_to_search"], state["sealed"]) == (False, False)
    assert "Not safe to search yet: it has not ended and can bring more pages; nothing is pending" in text
    assert "1 page can be found already" in text
    assert "wait=true" in waited
    assert (ended["safe_to_search"], ended["searchability"]) == (True, AS_DELIVERED)


async def test_pages_that_are_not_indexed_yet_are_waited_for(mcp_service: Service):
    crawl_id, stack = new_crawl_id(), mcp_service.stack
    mcp_service.embedder.fail_with(503)
    stack.post_event(page_event(crawl_id, markdown=f"Something new in {crawl_id}."))
    stack.post_event(event(crawl_id, "completed"))
    async with over_http(stack.url) as client:
        _, pending = await answered(client, "crawl_status", crawl_id=crawl_id)
        mcp_service.embedder.fail_with(None)
        _, ended = await answered(client, "crawl_status", crawl_id=crawl_id, wait=True)
    assert pending["searchability"].startswith("Not safe to search yet: 1 page not indexed yet; ")
    assert ended["searchability"] == AS_DELIVERED


async def test_a_profile_has_the_failures_with_their_text_page_by_page(mcp_service: Service):
    pages = {f"/gone-{number}": Page("gone", status=410) for number in range(5)}
    with Website({"/": html("<h1>Start</h1>", links=pages), **pages}) as site:
        async with over_http(mcp_service.stack.url) as client:
            crawl_id = await crawled(client, f"{site.url}/")
            text, first = await answered(client, "profile_crawl", crawl_id=crawl_id, error_limit=2)
            rest, second = await answered(
                client,
                "profile_crawl",
                crawl_id=crawl_id,
                error_offset=2,
                error_limit=10,
                include_details=True,
            )

    assert (first["total_errors"], first["next_error_offset"], first["slowest_pages"]) == (5, 2, None)
    assert [error["url"] for error in first["errors"]] == [f"{site.url}/gone-0", f"{site.url}/gone-1"]
    assert {error["code"] for error in first["errors"]} == {"http_410"}
    assert {error["status_code"] for error in first["errors"]} == {410}
    assert "Failed pages one by one, 2 of 5. Further ones with error_offset=2." in text
    assert f"- {site.url}/gone-1\n  http_410: the page answered with HTTP status 410" in text
    assert "Where the time went" in text
    assert "worker time" in text
    assert first["crawl"]["operations"]["worker"]["count"] == 1
    assert [error["url"][-1] for error in second["errors"]] == ["2", "3", "4"]
    assert second["next_error_offset"] is None
    assert "Slowest pages, stage by stage:" in rest
    [page] = [each for each in second["slowest_pages"] if each["state"] == "indexed"]
    assert set(page["stages"]) == {"chunking", "embedding", "bm25", "qdrant"}


async def test_crawls_are_listed_and_compared(mcp_service: Service):
    with otters() as site:
        async with over_http(mcp_service.stack.url) as client:
            a, b = await crawled(client, f"{site.url}/"), await crawled(client, f"{site.url}/")
            listing, listed = await answered(client, "list_crawls", limit=2)
            text, compared = await answered(client, "compare_crawls", a=b, b=a)

    assert [crawl["crawl_id"] for crawl in listed["crawls"]] == [b, a]
    assert listed["total"] >= 2
    assert listing.count("Safe to search") == 2
    assert (compared["a"]["crawl_id"], compared["b"]["crawl_id"]) == (b, a)
    assert compared["numbers"]["pages_unchanged"] == {"a": 3, "b": 0, "ratio": None}
    assert compared["numbers"]["total_pages"]["ratio"] == 1
    assert compared["stages"]["embedding"]["mean_ms"]["a"] is None
    assert "A ÷ B" in text


async def test_failed_pages_are_retried_as_far_as_they_were_received(mcp_service: Service):
    mcp_service.embedder.max_characters = 1
    crawl_id = new_crawl_id()
    try:
        mcp_service.stack.post_event(page_event(crawl_id, markdown=f"Zebras of {crawl_id}."))
        metadata = {"sourceURL": "https://example.com/lost", "statusCode": 502}
        mcp_service.stack.post_event(page_event(crawl_id, metadata=metadata))
        mcp_service.stack.post_event(event(crawl_id, "completed"))
        assert mcp_service.stack.settled(crawl_id)["pages_failed"] == 2
    finally:
        mcp_service.embedder.max_characters = None
    async with over_http(mcp_service.stack.url) as client:
        text, requeued = await answered(client, "retry_failed_pages", crawl_id=crawl_id)
        _, state = await answered(client, "crawl_status", crawl_id=crawl_id, wait=True)

    assert (requeued["crawl_id"], requeued["queued"], requeued["still_failed"]) == (crawl_id, 1, 1)
    assert requeued["left"] == {"not_received": 1}
    [lost] = requeued["pages"]
    assert (lost["url"], lost["error_code"]) == ("https://example.com/lost", "http_502")
    assert text.startswith(
        "1 page queued again\n1 page: failed before any content was received (1 http_502)\n"
    )
    assert "rescrape=true" in text
    assert (state["pages_indexed"], state["pages_failed"]) == (1, 1)


async def test_a_crawl_is_cancelled(mcp_service: Service):
    links = [f"/{number}" for number in range(100)]

    def slowly(path: str) -> Page | None:
        return replace(html("<p>slow</p>"), delay_seconds=0.3) if path in links else None

    with Website({"/": html("<h1>Start</h1>", links=links)}, answer=slowly) as site:
        async with over_http(mcp_service.stack.url) as client:
            _, begun = await answered(client, "crawl", url=f"{site.url}/")
            text, cancelled = await answered(client, "cancel_crawl", crawl_id=begun["crawl_id"])
            _, ended = await answered(client, "crawl_status", crawl_id=begun["crawl_id"], wait=True)
            again, late = await answered(client, "cancel_crawl", crawl_id=begun["crawl_id"])
    assert text.startswith("Cancelled; what was received is indexed.\nCrawl ")
    assert (cancelled["cancelled"], cancelled["crawl"]["crawl_id"]) == (True, begun["crawl_id"])
    assert ended["status"] == "cancelled"
    assert late["cancelled"] is False
    assert again.startswith("It had ended already.")


async def test_a_batch_needs_a_firecrawl_and_says_so(mcp_service: Service):
    async with over_http(mcp_service.stack.url) as client:
        words = await refused(client, "batch_scrape", urls=["https://a.example/"])
    assert "set CRAWLSCOPE_FIRECRAWL_URL" in words


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_wrong_arguments_are_explained_in_a_sentence(mcp_service: Service, transport: str):
    async with connect_to(mcp_service.stack, transport)() as client:
        for tool, arguments, sentence in WRONG:
            assert sentence in await refused(client, tool, **arguments), (tool, arguments)


@pytest.mark.parametrize("crawl_id", [NOBODY, "a/b", "..", ".", "%2e", "a?b#c", "\0", "x" * 255])
async def test_an_unknown_crawl(mcp_service: Service, crawl_id: str):
    async with over_http(mcp_service.stack.url) as client:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("crawl_status", {"crawl_id": crawl_id}),
            ("crawl_status", {"crawl_id": crawl_id, "wait": True}),
            ("profile_crawl", {"crawl_id": crawl_id}),
            ("retry_failed_pages", {"crawl_id": crawl_id}),
            ("cancel_crawl", {"crawl_id": crawl_id}),
            ("compare_crawls", {"a": crawl_id, "b": crawl_id}),
        ]
        for tool, arguments in calls:
            assert (await refused(client, tool, **arguments)).startswith("Crawl not found: "), tool


async def test_a_search_for_nothing_that_exists_says_so(mcp_service: Service):
    async with over_http(mcp_service.stack.url) as client:
        text, found = await answered(client, "search", query="xylophone", mode="keyword", domain="no.example")
    assert found["results"] == []
    assert text == "Nothing found for 'xylophone' (keyword search)."
