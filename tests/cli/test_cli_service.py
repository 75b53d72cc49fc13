"""The commands that need the running service: with none, with one that stays, with one that dies."""

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from crawlscope.cli.main import app
from crawlscope.core import logs, service_file
from crawlscope.database import revision
from tests.docs.test_cli import COMMANDS
from tests.support.commands import (
    PAGES,
    PROGRAM,
    crawlscope,
    environment,
    processes_of,
    start_crawlscope,
    website,
)
from tests.support.fakes.changedetection_server import KEY, FakeChangedetection
from tests.support.fakes.loopback import free_port
from tests.support.fakes.website import Page, Website, html
from tests.support.stack import eventually

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def watcher() -> Iterator[FakeChangedetection]:
    with FakeChangedetection() as running:
        yield running


@pytest.fixture(scope="module")
def service(data_dir: Path, watcher: FakeChangedetection) -> Iterator[Path]:
    """The data folder of a service that stays."""
    own = {"CHANGEDETECTION_URL": watcher.url, "CHANGEDETECTION_API_KEY": KEY, "PORT": str(free_port())}
    up = subprocess.Popen([*PROGRAM, "up"], env=environment(data_dir, **own), stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: service_file.read(data_dir), lambda found: found is not None, 240)
        yield data_dir
        up.terminate()
        assert up.wait(timeout=60) == 0
    finally:
        up.kill()
        up.wait()


@pytest.fixture(scope="module")
def crawl_id(service: Path) -> str:
    with website() as url:
        ended = crawlscope(service, "crawl", url, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)["crawl_id"]


def test_a_crawl_starts_what_it_needs_and_leaves_nothing_behind(data_dir):
    with website() as url, _default_port_taken():
        ended = crawlscope(data_dir, "crawl", url, "--json")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    crawl = json.loads(ended.stdout)
    assert (crawl["status"], crawl["total_pages"], crawl["pages_indexed"]) == ("completed", PAGES, PAGES)
    assert crawl["found"] == PAGES
    assert processes_of(data_dir) == []
    assert service_file.read(data_dir) is None


def test_a_killed_command_takes_its_stack_along(data_dir):
    with website(answer_seconds=60) as url:
        command = start_crawlscope(data_dir, "crawl", url)
        eventually(lambda: service_file.read(data_dir), lambda found: found is not None, 240)
        command.kill()
        command.communicate()
    eventually(lambda: processes_of(data_dir), lambda left: not left)


def test_a_crawl_prints_its_profile(service):
    with website() as url:
        ended = crawlscope(service, "crawl", url, "--limit", "3")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "3: 3 indexed" in ended.stdout
    assert "Where the time went" in ended.stdout
    profile = ended.stdout[ended.stdout.index("Pages") :]
    assert max(map(len, profile.splitlines())) <= 80


def test_crawls(service, crawl_id):
    listed = json.loads(crawlscope(service, "crawls", "--json").stdout)
    assert crawl_id in [crawl["crawl_id"] for crawl in listed["crawls"]]
    assert crawl_id in crawlscope(service, "crawls").stdout


def test_a_running_service_is_not_said_to_start(service):
    terminal, own_end = pty.openpty()
    with closing_fd(terminal), closing_fd(own_end):
        asked = [*PROGRAM, "top"]
        subprocess.run(
            asked, env=environment(service), stdout=subprocess.DEVNULL, stderr=own_end, timeout=60, check=True
        )
        os.set_blocking(terminal, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal, 100)


def test_profile(service, crawl_id):
    assert json.loads(crawlscope(service, "profile", crawl_id, "--json").stdout)["crawl_id"] == crawl_id
    shown = crawlscope(service, "profile", crawl_id).stdout
    assert crawl_id in shown
    assert "unaccounted" in shown


def test_compare(service, crawl_id):
    compared = json.loads(crawlscope(service, "compare", crawl_id, crawl_id, "--json").stdout)
    assert compared["numbers"]["total_pages"] == {"a": PAGES, "b": PAGES, "ratio": 1.0}
    shown = crawlscope(service, "compare", crawl_id, crawl_id)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "worker time" in shown.stdout
    unknown = crawlscope(service, "compare", crawl_id, UNKNOWN)
    assert (unknown.returncode, unknown.stderr) == (1, f"crawlscope: Crawl not found: {UNKNOWN}\n")


def test_search(service, crawl_id):
    response = json.loads(crawlscope(service, "search", "floating otters", "--json").stdout)
    assert response["results"]
    shown = crawlscope(service, "search", "shellfish", "--limit", "2", "--mode", "keyword").stdout
    assert "while they eat shellfish" in shown
    assert "2 pages of" in shown


def test_retry_without_failed_pages(service, crawl_id):
    ended = crawlscope(service, "retry", crawl_id)
    assert (ended.returncode, ended.stdout) == (0, "0 pages queued again: none failed\n")


def test_pages_that_the_crawler_could_not_fetch_are_fetched_again_on_request(service):
    broken = {f"/{name}": Page(reset=True) for name in ("a", "b")}
    with Website({"/": html("<p>Herons stand.</p>", links=broken), **broken}) as site:
        begun = crawlscope(service, "crawl", f"{site.url}/", "--json")
        assert begun.returncode == 0, begun.stderr
        failing = json.loads(begun.stdout)["crawl_id"]

        ended = crawlscope(service, "retry", failing)
        assert ended.returncode == 1
        assert "2 pages: failed before any content was received (2 scrape_failed)" in ended.stdout
        assert f"{site.url}/a: " in ended.stdout
        [line] = ended.stderr.splitlines()
        assert line.endswith(f"fetched again: crawlscope retry {failing} --rescrape")

        site.pages["/a"] = html("<p>Herons wade.</p>", links=["/never"])
        ended = crawlscope(service, "retry", failing, "--rescrape", "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        retried = json.loads(ended.stdout)
        assert (retried["queued"], retried["rescraped"], retried["left"]) == (0, 2, {})
        again = eventually(
            lambda: _crawls(service)[retried["rescrape_crawl_id"]], lambda it: it["sealed"], 60
        )
        assert (again["pages_indexed"], again["pages_failed"]) == (1, 1)
        assert again["extra_metadata"]["retry_of"] == failing
        assert "/never" not in site.requests


def test_a_page_that_the_crawl_does_not_have_is_not_tried_again(service, crawl_id):
    ended = crawlscope(service, "retry", crawl_id, "--url", "https://other.example/")
    assert ended.returncode == 1
    assert ended.stdout == "1 page: no page of this crawl has this URL\n  https://other.example/\n"
    assert "1 page could not be tried again (1 no page of this crawl has this URL)" in ended.stderr


def test_a_running_crawl_is_deleted_and_stops(service):
    links = {f"/{number}" for number in range(5_000)}

    def slowly(path: str) -> Page | None:
        return replace(html(), delay_seconds=0.2) if path in links else None

    with Website({"/": html(links=links)}, answer=slowly) as site:
        begun = crawlscope(service, "crawl", f"{site.url}/", "--no-wait")
        running = begun.stdout.strip()
        eventually(lambda: len(site.requests), lambda asked: asked > 5, 120)
        refused = crawlscope(service, "delete", running)
        assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
        ended = crawlscope(service, "delete", running, "--yes", "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout) == {"crawl_id": running, "goes_on": None}
        asked: list[int] = []

        def quiet() -> bool:
            asked.append(len(site.requests))
            return asked[-3:] == [asked[-1]] * 3

        eventually(quiet, bool, 30, every_seconds=1)
        assert len(site.requests) < len(links)
    assert running not in _crawls(service)
    ended = crawlscope(service, "delete", running, "--yes")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"crawlscope: Crawl not found: {running}\n"


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_on_a_terminal_a_deletion_is_asked_about(service, answer, code):
    with website() as url:
        crawled = json.loads(crawlscope(service, "crawl", url, "--limit", "1", "--json").stdout)["crawl_id"]
    terminal, own_end = pty.openpty()
    with closing_fd(terminal), closing_fd(own_end):
        asking = subprocess.Popen(
            [*PROGRAM, "delete", crawled],
            env=environment(service),
            stdin=own_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.write(terminal, answer.encode() or b"\x04")
        stdout, stderr = asking.communicate(timeout=60)
    assert asking.returncode == code, stderr
    assert b"and its 1 page?" in stderr
    assert (stdout.decode().strip() == f"Crawl {crawled} is deleted.") == (code == 0)
    assert (crawled in _crawls(service)) == (code != 0)


def test_ctrl_c_at_the_question_ends_a_deletion_at_once(service, crawl_id):
    terminal, own_end = pty.openpty()
    with closing_fd(terminal), closing_fd(own_end):
        asking = subprocess.Popen(
            [*PROGRAM, "delete", crawl_id],
            env=environment(service),
            stdin=own_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert asking.stderr is not None
        while asking.stderr.read(1) != b"?":
            assert asking.poll() is None
        asking.send_signal(signal.SIGINT)
        try:
            asking.communicate(timeout=60)
        finally:
            asking.kill()
    assert asking.returncode == 1
    assert crawl_id in _crawls(service)


def test_watch(service, crawl_id, watcher):
    watcher.watch_limit = 2
    ended = crawlscope(service, "watch", crawl_id)
    assert (ended.returncode, len(watcher.watches)) == (1, 2)
    assert ended.stdout.startswith("2 watches created, 0 known before.")
    assert "not watched, the first: http://127.0.0.1" in ended.stderr
    assert ended.stderr.count("\n") == 1
    watcher.watch_limit = None
    ended = crawlscope(service, "watch", crawl_id, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    watched = {"created": PAGES - 2, "known": 2, "refused": [], "left": 0}
    assert json.loads(ended.stdout) == {"crawl_id": crawl_id, **watched}
    assert sorted(watch["title"] for watch in watcher.watches.values()) == [
        f"Page {number}" for number in range(1, PAGES + 1)
    ]


@pytest.mark.parametrize("command", ["profile", "retry", "watch", "cancel"])
def test_an_unknown_crawl(service, command):
    ended = crawlscope(service, command, UNKNOWN)
    assert ended.returncode == 1
    assert ended.stderr == f"crawlscope: Crawl not found: {UNKNOWN}\n"


def test_an_unreachable_website(service):
    ended = crawlscope(service, "crawl", f"http://127.0.0.1:{free_port()}/", "--json")
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "could not be crawled" in line
    assert json.loads(ended.stdout)["status"] == "failed"


def test_replay_of_what_was_received_in_a_time(service):
    for since in ("2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00"):
        ended = crawlscope(service, "replay", "--since", since, "--until", "2026-01-01T00:00:01", "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout)["deliveries"] == 0


def test_without_waiting_the_crawl_is_only_named(service):
    with website() as url:
        ended = crawlscope(service, "crawl", url, "--no-wait")
        assert ended.returncode == 0
        assert ended.stderr == ""
        [crawl_id] = ended.stdout.split()
        eventually(lambda: _crawls(service)[crawl_id]["pages_indexed"], lambda pages: pages == PAGES, 120)


def test_the_service_may_restart_while_a_crawl_is_followed(service):
    with website(answer_seconds=3) as url:
        command = start_crawlscope(service, "crawl", url, "--json")
        eventually(lambda: _crawl_of(service, url), lambda crawl: bool(crawl and crawl["found"]), 120)
        running = service_file.read(service)
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        stdout, stderr = command.communicate(timeout=180)
    assert (command.returncode, stderr) == (0, "")
    assert json.loads(stdout)["pages_indexed"] == PAGES


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["for people", "as JSON"])
def test_an_interrupted_command_says_that_the_crawl_goes_on(service, number, code, options):
    with website(answer_seconds=60) as url:
        command = start_crawlscope(service, "crawl", url, *options)
        crawl = eventually(lambda: _crawl_of(service, url), bool, 120)
        assert crawl is not None
        crawl_id = crawl["crawl_id"]
        assert command.stdout is not None
        if not options:
            assert command.stdout.readline() == f"Crawl {crawl_id}\n"
        command.send_signal(number)
        stdout, stderr = command.communicate(timeout=180)
    assert (command.returncode, stdout) == (code, "")
    if stderr or not options:  # a signal may come before the command knows that the crawl began
        assert stderr == (
            f"crawlscope: crawl {crawl_id} goes on. Follow it again: crawlscope profile {crawl_id} --follow. "
            f"Cancel it: crawlscope cancel {crawl_id}\n"
        )


def test_a_crawl_is_followed_again_and_its_cancellation_is_shown(service):
    with website(answer_seconds=60) as url:
        crawl_id = crawlscope(service, "crawl", url, "--no-wait").stdout.strip()
        command = start_crawlscope(service, "profile", crawl_id, "--follow")
        assert command.stdout is not None
        assert command.stdout.readline() == f"Crawl {crawl_id}\n"
        assert crawlscope(service, "cancel", crawl_id).returncode == 0
    stdout, stderr = command.communicate(timeout=180)
    assert command.returncode == 1
    assert stderr.startswith(f"crawlscope: crawl {crawl_id} was cancelled on request, ")
    assert f"Crawl {crawl_id}  cancelled" in stdout
    followed = crawlscope(service, "profile", crawl_id, "--follow", "--json")
    assert followed.returncode == 1
    assert json.loads(followed.stdout)["cancel_requested"] is True


def test_failed_pages_are_summed_up_at_the_end_and_do_not_fail_the_crawl(service):
    forbidden = {f"/{number}": Page("no", status=403) for number in range(3)}
    with Website({"/": html("<p>Herons.</p>", links=forbidden), **forbidden}) as site:
        ended = crawlscope(service, "crawl", f"{site.url}/")
    assert (ended.returncode, ended.stderr) == (0, "")
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("3 of 4 pages failed (3 http_403). Try them again: crawlscope retry ")
    assert last.endswith(" --rescrape")


@pytest.mark.parametrize(
    ("page", "robots", "reason"),
    [
        (Page("gone", status=404), None, "HTTP status 404"),
        (Page("no", status=403), None, "HTTP status 403"),
        (Page(reset=True), None, "reset"),
        (html("hidden"), "User-agent: *\nDisallow: /", "robots.txt"),
    ],
    ids=["404", "403", "reset", "robots"],
)
def test_a_start_page_that_cannot_be_had_fails_the_crawl(service, page, robots, reason):
    with Website({"/": page}, robots=robots) as site:
        ended = crawlscope(service, "crawl", f"{site.url}/")
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    crawl_id = ended.stdout.split()[1]
    assert line.startswith(f"crawlscope: crawl {crawl_id} failed: {site.url}/ could not be crawled: ")
    assert reason in line
    assert f"Crawl {crawl_id}  failed" in ended.stdout


def test_a_crawl_that_waits_for_its_turn_says_so(service):
    with website(answer_seconds=60) as url, _http(service) as http:
        crawls = [http.post("/api/crawls", json={"url": url}).json()["crawl_id"] for _ in range(5)]
        waiting = eventually(lambda: _starved(service, crawls), lambda it: it is not None, 60)
        for crawl_id in crawls:
            http.post(f"/api/crawls/{crawl_id}/cancel")
    assert waiting is not None
    assert waiting["awaits"] == "its turn: the crawler is busy with 4 other crawls"
    assert "the crawler was asked for it" in waiting["verdict"]["reason"]
    eventually(lambda: all(_crawls(service)[each]["sealed"] for each in crawls), bool, 120)


def test_a_reader_that_disconnects(service, crawl_id):
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*PROGRAM, "crawls", "--json"],
        env=environment(service),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert ended.stderr == b""


def test_the_doctor_knows_the_running_service(service):
    running = service_file.read(service)
    assert running is not None
    ended = crawlscope(service, "doctor", PORT="0")
    assert ended.returncode == 0, ended.stdout
    assert f"runs at {running.url}" in ended.stdout
    assert "served by the index process" in ended.stdout


WITHOUT_JSON = {"up", "index", "serve", "worker", "mcp", "demo", "db upgrade", "db downgrade"}
"""Services, a protocol, a show, and commands that print nothing."""


def test_every_command_that_answers_prints_one_json_document(service, crawl_id, tmp_path, monkeypatch):
    for name, value in environment(service).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # of this process, which has other tests

    def answer(command: str, *arguments: str, code: int = 0) -> Any:
        asked.add(command)
        ended = CliRunner().invoke(app, [*command.split(), *arguments, "--json"])
        assert ended.exit_code == code, (command, ended.output, ended.exception)
        return json.loads(ended.stdout)

    asked: set[str] = set()
    with website() as url:
        made = answer("crawl", url)["crawl_id"]
    for command in ("profile", "cancel", "retry", "recount", "watch"):
        assert answer(command, made)
    assert answer("compare", made, crawl_id)["numbers"]
    assert made in str(answer("crawls"))
    assert answer("top")["crawls"] == []
    assert answer("search", "otters")["results"]
    assert answer("replay")["deliveries"] > 0
    assert answer("export", made, "--output", str(tmp_path / "pages.jsonl"))["pages"] == PAGES
    assert answer("delete", made, "--yes")["crawl_id"] == made
    key = answer("keys add", "a program")["id"]
    assert key in str(answer("keys list"))
    assert answer("keys revoke", key) == {"key_id": key}
    assert answer("reindex")["documents"] >= PAGES
    assert answer("backup", str(tmp_path / "backup"))["rows"]["crawl_sessions"] > 0
    assert answer("db current")["revision"] == revision.NEWEST
    assert answer("db prune", "--dry-run") == {"pruned": [], "dry_run": True}
    monkeypatch.setenv("CRAWLSCOPE_PORT", "0")
    assert {"part": "port", "ok": True} in [
        {"part": each["part"], "ok": each["ok"]} for each in answer("doctor")["findings"]
    ]
    monkeypatch.setenv("CRAWLSCOPE_DATA_DIR", str(tmp_path / "restored"))
    assert answer("restore", str(tmp_path / "backup"), "--without-index")["index"] is None
    asked.add("reconcile")  # it has nothing to answer without a Firecrawl
    assert asked | WITHOUT_JSON == {name.removeprefix("crawlscope ") for name in COMMANDS} - {"crawlscope"}


@contextmanager
def closing_fd(number: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(number)


def _starved(service: Path, crawls: list[str]) -> dict[str, Any] | None:
    known = _crawls(service)
    verdicts = ((known[crawl_id], known[crawl_id]["verdict"]) for crawl_id in crawls)
    return next((crawl for crawl, verdict in verdicts if verdict and verdict["verdict"] == "starved"), None)


def _http(service: Path) -> httpx2.Client:
    """As the command line's user, who may crawl private addresses."""
    running = service_file.read(service)
    assert running is not None
    secrets = {"X-API-Secret": "api-secret", "X-Crawlscope-Local": "local-token"}
    headers = {name: (service / file).read_text() for name, file in secrets.items()}
    return httpx2.Client(base_url=running.url, headers=headers, trust_env=False)


def _crawls(service: Path) -> dict[str, dict[str, Any]]:
    with _http(service) as http:
        return {crawl["crawl_id"]: crawl for crawl in http.get("/api/metrics/crawls").json()["crawls"]}


def _crawl_of(service: Path, url: str) -> dict[str, Any] | None:
    found = [crawl for crawl in _crawls(service).values() if crawl["crawl_url"] == url]
    return found[0] if found else None


class _default_port_taken:  # noqa: N801 - used as a statement
    """Nobody else's stack may depend on the default port being free."""

    def __enter__(self) -> None:
        self._socket: socket.socket | None = None
        with suppress(OSError):  # taken it is, then
            self._socket = socket.create_server(("127.0.0.1", 8108))

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
