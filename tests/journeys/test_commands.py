"""A crawl compared, exported and watched from the command line, beside a running service."""

import json
from pathlib import Path

from tests.support.commands import crawlscope
from tests.support.stack import API_SECRET, Stack, new_crawl_id, page_event

URL = "https://example.com/a"


def test_crawls_are_compared_exported_and_listed_from_the_command_line(quick_stack: Stack, tmp_path: Path):
    monday, tuesday = new_crawl_id(), new_crawl_id()
    for crawl_id, words in (
        (monday, "A queue holds what waits."),
        (tuesday, "A queue holds all that waits."),
    ):
        assert quick_stack.post_event(page_event(crawl_id, URL, markdown=words)).status_code == 202
        quick_stack.settled(crawl_id)

    def run(*arguments: str) -> str:
        done = crawlscope(quick_stack.data_dir, *arguments, API_SECRET=API_SECRET)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    compared = json.loads(run("compare", tuesday, monday, "--json"))
    page = run("compare", tuesday, monday, "--url", URL)
    lines = run("export", tuesday).splitlines()
    folder = json.loads(run("export", tuesday, "--format", "markdown", "-o", str(tmp_path / "it"), "--json"))
    running = json.loads(run("top", "--json"))

    assert compared["page_changes"]["counts"]["changed"] == 1
    assert "- A queue holds what waits." in page
    assert "+ A queue holds all that waits." in page
    assert [json.loads(line)["text"] for line in lines] == ["A queue holds all that waits."]
    assert (folder["pages"], len(list((tmp_path / "it").rglob("*.md")))) == (1, 1)
    assert {monday, tuesday} <= {crawl["crawl_id"] for crawl in running["crawls"]}
    refused = crawlscope(
        quick_stack.data_dir, "export", tuesday, "-o", str(tmp_path / "it"), API_SECRET=API_SECRET
    )
    assert (refused.returncode, "exists already" in refused.stderr) == (1, True)
