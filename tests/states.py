"""Random sequences of requests to a running service, compared after each with a model of what it knows.

    python -m tests.states [--sequences N] [--steps N] [--shorten]

Crawls arrive, end, are retried, replayed, cancelled and deleted; programs bring documents, keys and changes;
the index is rebuilt. No request may be answered with 5xx, counts and totals are those of the model, and what
was deleted is gone.
A sequence that finds a difference is printed; `--shorten` finds a short one, which takes minutes.
"""

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from rich.console import Console

from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.stack import Stack, eventually, new_crawl_id, page_event, running_stack

INDEXED, FAILED = "indexed", "failed"
ENDS = {"completed": 0, "failed": 1, "cancelled": 2}
"""A later one of these takes precedence."""
NAMES = st.sampled_from(["a", "b", "c"])
READ = ("", "/pages", "/timeline", "/diagnosis", "/attempts?url=x", "/page?url=x")


@dataclass
class Crawl:
    id: str = field(default_factory=new_crawl_id)
    pages: dict[str, str] = field(default_factory=dict)
    """The outcome by URL."""
    status: str = "in_progress"
    deleted: bool = False

    def number_of(self, outcome: str) -> int:
        return sum(each == outcome for each in self.pages.values())


class Service(RuleBasedStateMachine):
    """Each sequence has a website, keys and watches of its own, so that one service serves all."""

    stack: Stack
    crawls = Bundle("crawls")

    def __init__(self) -> None:
        super().__init__()
        self.word = f"w{uuid4().hex}"
        self.site = f"https://{self.word}.example"
        self.known: list[Crawl] = []
        self.documents = dict[str, str]()
        """The text by URL."""
        self.keys = dict[str, str]()
        self.changes = 0

    @property
    def living(self) -> list[Crawl]:
        return [crawl for crawl in self.known if not crawl.deleted]

    @rule(target=crawls)
    def begin(self) -> Crawl:
        crawl = Crawl()
        self.known.append(crawl)
        self.deliver(crawl, {"type": "crawl.started", "data": []})
        return crawl

    @rule(crawl=crawls, name=NAMES, text=st.sampled_from(["first", "second"]))
    def deliver_page(self, crawl: Crawl, name: str, text: str) -> None:
        url = f"{self.site}/{name}"
        event = page_event(crawl.id, url, markdown=f"# {name}\n\nThe {text} text of {self.word}.")
        if self.deliver(crawl, event):
            crawl.pages[url] = INDEXED

    @rule(crawl=crawls, name=NAMES)
    def deliver_failed_page(self, crawl: Crawl, name: str) -> None:
        """Not with 404, which takes what other crawls found out of search: `tests/crawls/test_gone.py`."""
        url = f"{self.site}/{name}"
        metadata = {"sourceURL": url, "statusCode": 403}
        if self.deliver(crawl, page_event(crawl.id, url, markdown="Forbidden.", metadata=metadata)):
            crawl.pages.setdefault(url, FAILED)

    @rule(crawl=crawls, how=st.sampled_from(sorted(ENDS)))
    def end(self, crawl: Crawl, how: str) -> None:
        self.settle()  # the pages that wait in a cancelled crawl are dropped
        if self.deliver(crawl, {"type": f"crawl.{how}", "data": []}):
            crawl.status = max(crawl.status, how, key=lambda status: ENDS.get(status, -1))

    @rule(crawl=crawls)
    def retry(self, crawl: Crawl) -> None:
        answer = self.ask("POST", f"/api/crawls/{crawl.id}/retry", expected(crawl, 202))
        if not crawl.deleted:
            asked = answer.json()
            assert asked["queued"] == 0, "what failed has no content"
            assert sum(asked["left"].values()) == crawl.number_of(FAILED)

    @rule(crawl=crawls)
    def cancel(self, crawl: Crawl) -> None:
        ended = crawl.status != "in_progress"
        answer = self.ask("POST", f"/api/crawls/{crawl.id}/cancel", expected(crawl, 202 if ended else 422))
        assert answer.status_code != 202 or answer.json()["cancelled"] is False

    @rule(crawl=crawls)
    def replay(self, crawl: Crawl) -> None:
        answer = self.ask("POST", "/api/deliveries/replay", {200}, json={"crawl_id": crawl.id})
        assert answer.json()["changed"] == 0

    @rule(crawl=crawls)
    def delete(self, crawl: Crawl) -> None:
        self.ask("DELETE", f"/api/crawls/{crawl.id}", expected(crawl, 204))
        crawl.deleted = True
        for part in READ:
            self.ask("GET", f"/api/metrics/crawls/{crawl.id}{part}", {404})
        self.ask("GET", f"/api/crawls/{crawl.id}/export", {404})

    @rule(name=NAMES, text=st.sampled_from(["first", "second"]))
    def bring_document(self, name: str, text: str) -> None:
        url = f"{self.site}/document/{name}"
        document = {"url": url, "markdown": f"The {text} document {name} of {self.word}."}
        state = self.ask("POST", "/api/documents", {200}, json=document).json()["state"]
        assert state == ("unchanged" if self.documents.get(url) == text else "indexed")
        self.documents[url] = text

    @rule(name=NAMES)
    def remove_document(self, name: str) -> None:
        url = f"{self.site}/document/{name}"
        self.ask("DELETE", "/api/documents", {204 if url in self.documents else 404}, params={"url": url})
        self.documents.pop(url, None)

    @precondition(lambda self: self.documents)
    @rule()
    def reindex(self) -> None:
        self.settle()
        self.ask("POST", "/api/reindex", {202})
        eventually(lambda: self.ask("GET", "/api/reindex", {200}).json()["filling"], lambda it: it is None)
        self.compare()

    @rule(scope=st.sampled_from(["receive", "read", "operate"]))
    def add_key(self, scope: str) -> None:
        made = self.ask("POST", "/api/keys", {201}, json={"name": self.word, "scope": scope}).json()
        self.keys[made["id"]] = scope

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def revoke_key(self, data: st.DataObject) -> None:
        key_id = sorted(self.keys)[data.draw(st.integers(0, len(self.keys) - 1))]
        for _ in range(2):  # the second changes nothing
            self.ask("DELETE", f"/api/keys/{key_id}", {204})
        del self.keys[key_id]

    @rule(name=NAMES)
    def report_change(self, name: str) -> None:
        """Reports the change of a page that no crawl of the model has: it is scraped again in a crawl of its
        own. On a busy machine, the name server may answer too late."""
        change = {"watch_url": f"https://changes-{self.word}.example/{name}", "watch_id": uuid4().hex}
        answer = self.ask("POST", "/api/webhook/changedetection", {202, 422}, json=change)
        self.changes += answer.status_code == 202
        assert answer.status_code == 202 or "could not be resolved within" in answer.json()["detail"]

    @rule()
    def compare(self) -> None:
        self.settle()
        for crawl in self.living:
            shown = self.stack.crawl(crawl.id)
            assert (shown["status"], shown["total_pages"]) == (crawl.status, len(crawl.pages))
            for outcome in (INDEXED, FAILED):
                assert shown[f"pages_{outcome}"] == crawl.number_of(outcome)
            assert self.total(f"/api/metrics/crawls/{crawl.id}/pages", state=FAILED) == crawl.number_of(
                FAILED
            )
            assert {page["url"] for page in self.stack.pages(crawl.id)} == set(crawl.pages)
            recounted = self.ask("POST", f"/api/crawls/{crawl.id}/recount", {200}).json()
            assert not recounted["changed"]
        assert self.total("/api/metrics/crawls", url=f"{self.word}.example/start") == len(self.living)
        for status in ("in_progress", *ENDS):
            number = sum(crawl.status == status for crawl in self.living)
            assert (
                self.total("/api/metrics/crawls", url=f"{self.word}.example/start", status=status) == number
            )
        found = self.stack.search(self.word, mode="keyword", limit=50)
        assert {result["url"] for result in found["results"]} == self.searchable()
        for result in found["results"]:
            assert self.documents.get(result["url"], "") in result["text"]
        keys = self.ask("GET", "/api/keys", {200}).json()["keys"]
        valid = [key for key in keys if key["name"] == self.word and key["revoked_at"] is None]
        assert {key["id"]: key["scope"] for key in valid} == self.keys
        assert self.total("/api/changes", url=f"changes-{self.word}") == self.changes

    def teardown(self) -> None:
        self.bring_document("a", "second")
        self.reindex()
        for crawl in self.living:
            self.delete(crawl)
        self.compare()

    def searchable(self) -> set[str]:
        pages = (crawl.pages.items() for crawl in self.living)
        return self.documents.keys() | {url for each in pages for url, outcome in each if outcome == INDEXED}

    def settle(self) -> None:
        for crawl in self.living:
            self.stack.settled(crawl.id)

    def deliver(self, crawl: Crawl, event: dict[str, Any]) -> bool:
        """Whether it counts: late deliveries of a deleted crawl are ignored."""
        own = {"id": crawl.id, "webhookId": new_crawl_id(), "metadata": {"url": f"{self.site}/start"}}
        answer = self.ask("POST", "/api/webhook/firecrawl", {202}, json={"success": True} | event | own)
        assert (answer.json()["status"] == "ignored") == crawl.deleted
        return not crawl.deleted

    def total(self, path: str, **query: Any) -> int:
        """That of the list, which has no more and no fewer entries on all of its pages."""
        listed, total = 0, self.ask("GET", path, {200}, params={"limit": 1, **query}).json()["total"]
        for offset in range(0, total + 1, 2):
            page = self.ask("GET", path, {200}, params={"limit": 2, "offset": offset, **query}).json()
            assert page.pop("total") == total
            listed += sum(map(len, page.values()))
        assert listed == total
        return total

    def ask(self, method: str, path: str, statuses: set[int], **options: Any) -> httpx2.Response:
        answer = self.stack.http.request(method, path, **options)
        assert answer.status_code in statuses, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer


def expected(crawl: Crawl, status: int) -> set[int]:
    return {404 if crawl.deleted else status}


def check(
    stack: Stack, sequences: int, steps: int, *, derandomize: bool = False, shorten: bool = False
) -> None:
    """Raises what Hypothesis raises for a sequence that finds a difference."""
    how = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=derandomize,
        phases=[Phase.generate, Phase.shrink] if shorten else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(type("Service", (Service,), {"stack": stack}), settings=how)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--shorten", action="store_true")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-states-") as folder,
        FakeEmbeddingServer() as embedder,
        running_stack(Path(folder) / "data", EMBEDDER="tei", EMBEDDER_URL=embedder.url) as stack,
    ):
        check(stack, given.sequences, given.steps, shorten=given.shorten)
    Console().print(f"{given.sequences} sequences of up to {given.steps} steps: no difference")


if __name__ == "__main__":
    main()
