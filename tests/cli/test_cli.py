import socket
import subprocess
import sys

import pytest

from tests.support.commands import crawlscope, environment


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crawl", "not-a-url"], "give a full URL"),
        (["crawl", "https://example.com/", "--limit", "0"], "--limit"),
        (["crawl"], "Missing argument"),
        (["crawl", "https://a.example/", "https://b.example/", "--limit", "5"], "several URLs"),
        (["crawl", "https://a.example/", "https://b.example/", "--engine", "builtin"], "--engine builtin"),
        (["crawl", "https://a.example/", "b.example"], "give a full URL"),
        (["crawl", "https://a.example/", "--scrape-options", "[1]"], "must be a JSON object"),
        (["crawl", "https://a.example/", "--scrape-options", "{x"], "must be a JSON object"),
        (["crawl", "https://a.example/", "--scrape-options", '{"x": NaN}'], "NaN"),
        (["crawl", "https://a.example/", "--scrape-options", '{"x": "\\ud800"}'], "surrogates"),
        (["profile", "\udcff"], "must be text in UTF-8"),
        (["cancel"], "Missing argument"),
        (["delete", "some-crawl"], "--yes"),
        (["search", "  "], "a query has"),
        (["search", "x", "--mode", "guess"], "'--mode': 'guess' is not one of"),
        (["crawls", "--unknown"], "--unknown"),
        (["unknown"], "No such command"),
    ],
)
def test_wrong_usage_is_explained(tmp_path, arguments, words):
    ended = crawlscope(tmp_path, *arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["crawls"], ["up"], ["db", "current"]])
def test_a_data_folder_that_cannot_be_written(tmp_path, arguments):
    ended = crawlscope(tmp_path, *arguments, DATA_DIR="/proc/x")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("crawlscope: ")
    assert "/proc/x" in line


def test_a_setting_that_cannot_work_is_named(tmp_path):
    ended = crawlscope(tmp_path, "crawls", PORT="many")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert "CRAWLSCOPE_PORT" in line


def test_a_port_that_was_chosen_and_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = crawlscope(tmp_path, "crawls", PORT=str(port))
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("crawlscope: ")
    assert f"cannot listen on 127.0.0.1:{port}" in line


def test_an_unreachable_database_is_said_in_one_line(tmp_path):
    url = "postgresql://nobody:pass-word@127.0.0.1:9/nothing"
    ended = crawlscope(tmp_path, "crawls", DATABASE_URL=url)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "the database does not answer" in line
    assert "pass-word" not in line


def test_help_names_every_command(tmp_path):
    ended = crawlscope(tmp_path, "--help")
    assert ended.returncode == 0
    for command in (
        "up",
        "index",
        "serve",
        "worker",
        "crawl",
        "crawls",
        "profile",
        "compare",
        "search",
        "retry",
        "delete",
        "doctor",
        "demo",
    ):
        assert f" {command} " in ended.stdout


def test_the_doctor_says_part_by_part_what_is_wrong(tmp_path):
    secret = tmp_path / "api-secret"
    secret.write_text("very-secret")
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = crawlscope(
            tmp_path,
            "doctor",
            PORT=str(taken.getsockname()[1]),
            DATABASE_URL="postgresql://nobody:pass-word@127.0.0.1:9/nothing",
            FIRECRAWL_URL="http://user:pass-word@127.0.0.1:9/",
            CHANGEDETECTION_URL="http://user:pass-word@127.0.0.1:9/",
        )
    assert ended.returncode == 1
    parts = {line[7:19].strip(): line[:6].strip() for line in ended.stdout.splitlines() if line[:6].strip()}
    assert parts == {
        "python": "ok",
        "data folder": "ok",
        "secrets": "failed",
        "service": "ok",
        "database": "failed",
        "index": "ok",
        "embedder": "ok",
        "port": "failed",
        "firecrawl": "failed",
        "watches": "failed",
    }
    assert "chmod 600" in ended.stdout
    assert "very-secret" not in ended.stdout
    assert "pass-word" not in ended.stdout + ended.stderr
    assert ended.stderr == "crawlscope: 5 of the checks failed\n"


ASKING = [
    ["crawls"],
    ["crawl", "https://a.example/"],
    ["profile", "c"],
    ["compare", "a", "b"],
    ["search", "x"],
    ["retry", "c"],
]


def test_what_only_asks_the_service_loads_nothing_of_its_engine(tmp_path):
    """It would take several times as long to start."""
    program = f"""
import sys
import crawlscope.cli.main, crawlscope.cli.mcp_stdio
from crawlscope.api.stack import Stack

async def bring_up(stack):
    raise LookupError

Stack.bring_up = bring_up
for arguments in {ASKING}:
    try:
        crawlscope.cli.main.app(arguments, standalone_mode=False)
    except LookupError:
        print("asked")
print(*sys.modules)
"""
    loaded = subprocess.check_output([sys.executable, "-c", program], env=environment(tmp_path), text=True)
    *asked, names = loaded.splitlines()
    assert asked == ["asked"] * len(ASKING)
    engine = {"sqlalchemy", "asyncpg", "pgqueuer", "numpy", "onnxruntime", "qdrant_edge"}
    assert not engine & set(names.split())


def test_printing_the_version_loads_neither_a_client_nor_a_terminal():
    program = "import sys, crawlscope.cli.main; print(*sys.modules)"
    names = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert "crawlscope.cli.crawls" in names
    assert not {"httpx2", "rich.live", "crawlscope.api.client", "crawlscope.api.stack"} & set(names)


def test_garbage_collection_examines_nothing_that_a_command_loads(tmp_path):
    program = """
import gc, sys
from crawlscope.api.stack import Stack
from crawlscope.cli.main import main

async def bring_up(stack):
    print(gc.isenabled(), gc.get_freeze_count() > len(gc.get_objects()), gc.get_threshold()[0])
    raise LookupError

Stack.bring_up = bring_up
sys.argv[1:] = ["crawls"]
main()
"""
    asked = [sys.executable, "-c", program]
    ended = subprocess.run(asked, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert ended.stdout == "True True 10000\n"
