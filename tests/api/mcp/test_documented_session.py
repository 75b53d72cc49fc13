"""The session in docs/mcp.md is run as it stands there, and prints what the page says that it prints."""

import asyncio
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.api.mcp.conftest import Service
from tests.support.documentation import Section, page, sections
from tests.support.fakes.website import Website, html
from tests.support.mcp_clients import over_http
from tests.support.stack import API_SECRET

SECTIONS = {section.title: section for section in sections(page("docs/mcp.md"), level=2)}
DOCUMENTED_SITE, DOCUMENTED_SERVICE = "https://docs.example.com", "http://127.0.0.1:8108"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COUNT = re.compile(r"\d+ found|of \d+ for|score [\d.]+")
"""The state of a crawl at once, and the service's other pages."""
_END = re.compile(r"(?<=Searchable  ).*: ")
"""Whether the last page was searchable before or after the end was reported."""
_BOUND = re.compile(
    r"^((Bound by|To change|Idle)  |(chunking|embedding) wait ).*\n( {12}.*\n)*", re.MULTILINE
)
"""Lines that depend on the load of the machine and on waiting pages; long ones are wrapped."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+m \d\ds|[\d,.]+ (ms|s|%|pages/s)")


def docs() -> Website:
    start = html(
        "<h1>Handbook</h1><p>All that operators have to know.</p>",
        title="Handbook",
        links=["/keys", "/backup", "/removed"],
    )
    return Website(
        {
            "/": replace(start, delay_seconds=0.5),
            "/keys": html(
                "<h1>Keys</h1><p>To rotate the keys, add the new one, wait a day, then drop the old one.</p>",
                title="Keys",
            ),
            "/backup": html("<h1>Backup</h1><p>Dumps are taken every night.</p>", title="Backup"),
        }
    )


async def test_the_session_prints_what_the_page_says(mcp_service: Service):
    section = SECTIONS["A session"]
    [program], [recorded] = section.blocks("python"), section.blocks("text")
    with docs() as site:
        printed = await run(
            program.replace(DOCUMENTED_SITE, site.url).replace(DOCUMENTED_SERVICE, mcp_service.stack.url)
        )
    assert comparable(printed.replace(site.url, DOCUMENTED_SITE)) == comparable(recorded)


async def test_the_tools_are_those_of_the_table(mcp_service: Service):
    rows = SECTIONS["Tools"].rows("tool")
    documented = {name.strip("`"): set(re.findall(r"`(\w+)\??`", arguments)) for name, arguments, _ in rows}
    async with over_http(mcp_service.stack.url) as client:
        tools = (await client.list_tools()).tools
    assert documented == {tool.name: set(tool.input_schema["properties"]) for tool in tools}
    optional = {
        name: set(re.findall(r"`(\w+)\?`", arguments))
        for name, arguments, _ in SECTIONS["Tools"].rows("tool")
    }
    for tool in tools:
        required = set(tool.input_schema.get("required", []))
        assert optional[f"`{tool.name}`"] == documented[tool.name] - required


@pytest.mark.parametrize(
    "program", sections(SECTIONS["Agent programs"].text, level=3), ids=lambda each: each.title
)
def test_configurations_can_be_pasted(program: Section):
    blocks = [json.loads(block) for block in program.blocks("json")]
    assert blocks
    for servers in (block.get("mcpServers") or block["servers"] for block in blocks):
        for server in servers.values():
            assert server.get("args", ["mcp"])[0] in ("mcp", "mcp-remote")
            assert server.get("url", "/mcp").endswith("/mcp")


async def run(program: str) -> str:
    environment = {**os.environ, "SECRET": API_SECRET, "NO_PROXY": "*"}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env=environment,
        timeout=180,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def comparable(printed: str) -> list[str]:
    """The parts that stay the same from run to run; the slowest page is another each time."""
    unbound = _BOUND.sub("", printed.replace("█", ""))
    steady = _TIME.sub("#", _COUNT.sub("#", _END.sub("", _ID.sub("ID", unbound))))
    return sorted(" ".join(line.split()) for line in steady.splitlines() if line.strip())
