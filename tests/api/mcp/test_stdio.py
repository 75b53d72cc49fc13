"""`crawlscope mcp`: with a service that runs, with none, with one that dies, with none to be had."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crawlscope.core import service_file
from tests.api.mcp.conftest import Service
from tests.support.commands import PROGRAM, processes_of
from tests.support.mcp_clients import INITIALIZE, answered, over_stdio, refused
from tests.support.stack import eventually, stack_environment


def start(data_dir: Path, **settings: str) -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [*PROGRAM, "mcp"],
        env=stack_environment(data_dir, **settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tell(server, INITIALIZE)["result"]["serverInfo"]["name"] == "crawlscope"
    return server


def tell(server: "subprocess.Popen[str]", message: Any) -> dict[str, Any]:
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps(message) + "\n")
    server.stdin.flush()
    answer: dict[str, Any] = json.loads(server.stdout.readline())
    return answer


@pytest.mark.slow
async def test_it_starts_a_stack_when_one_is_needed_and_stops_it(tmp_path: Path):
    async with over_stdio(tmp_path) as client:
        assert (await client.list_tools()).tools
        assert service_file.read(tmp_path) is None
        assert await answered(client, "list_crawls") == (
            "No crawls yet. The crawl tool starts one.",
            {"crawls": [], "total": 0},
        )
        text, _ = await answered(client, "search", query="anything")
        assert text.startswith("Nothing found")
        assert service_file.read(tmp_path) is not None
    eventually(lambda: processes_of(tmp_path), lambda left: not left)


async def test_it_survives_the_restart_of_a_service(mcp_service: Service):
    async with over_stdio(mcp_service.stack.data_dir) as client:
        await answered(client, "list_crawls")
        running = service_file.read(mcp_service.stack.data_dir)
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        await answered(client, "list_crawls")
    again = service_file.read(mcp_service.stack.data_dir)
    assert again is not None
    assert again.pid != running.pid


async def test_a_service_that_cannot_be_had_is_an_answer(tmp_path: Path):
    down = "postgresql://nobody:pass-word@127.0.0.1:9/nothing"
    async with over_stdio(tmp_path, DATABASE_URL=down) as client:
        for _ in range(2):
            sentence = await refused(client, "list_crawls")
            assert sentence.startswith("the service does not start: ")
            assert "the database does not answer" in sentence
            assert "pass-word" not in sentence


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (None, 0)])
def test_it_ends_when_asked_to_also_with_a_call_under_way(
    mcp_service: Service, number: int | None, code: int
):
    server = start(mcp_service.stack.data_dir)
    assert server.stdin
    arguments = {"url": "http://127.0.0.1:9/", "wait": True}
    call = {"name": "crawl", "arguments": arguments, "_meta": {"progressToken": 1}}
    progress = tell(server, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
    assert progress["method"] == "notifications/progress"
    if number is None:
        server.stdin.close()
    else:
        server.send_signal(number)
    assert server.wait(timeout=60) == code
    assert server.stderr
    assert server.stderr.read() == ""


def test_only_the_protocol_is_on_stdout(mcp_service: Service):
    server = start(mcp_service.stack.data_dir, LOG_LEVEL="DEBUG")
    assert server.stdin
    assert server.stdout
    server.stdin.write("this is no message\n")
    unknown = tell(server, {"jsonrpc": "2.0", "id": 3, "method": "no/such/method"})
    answers = [unknown, tell(server, {"jsonrpc": "2.0", "id": 4, "method": "ping"})]
    server.stdin.close()
    rest = server.stdout.read().splitlines()
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest)
    assert {answer["jsonrpc"] for answer in answers} == {"2.0"}
    assert server.wait(timeout=60) == 0


def test_wrong_settings_end_it_at_once(tmp_path: Path):
    ended = subprocess.run(
        [*PROGRAM, "mcp"],
        env=stack_environment(tmp_path, PORT="many"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "CRAWLSCOPE_PORT" in ended.stderr
