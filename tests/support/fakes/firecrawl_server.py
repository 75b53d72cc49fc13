"""A Firecrawl on loopback: crawls what a test configures, delivers webhooks, answers its API, can misbehave.

    with FakeFirecrawl(Site.of(20), secret="…") as firecrawl:
        firecrawl.drops = lambda event: event.type == "crawl.completed"
        …  # POST firecrawl.url + "/v2/crawl", or let Crawlscope do it
        firecrawl.wait_until_delivered(job_id)

Everything runs in threads of its own. An async test whose receiver runs in the test's own loop awaits
`asyncio.to_thread(firecrawl.wait_until_delivered, job_id)`. All switches may be turned at any time.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.fakes.firecrawl_deliveries import Courier, Delivery, Event, Target
from tests.support.fakes.firecrawl_http import Reply, Request, Server
from tests.support.fakes.firecrawl_job import Job, now, recorded_job
from tests.support.fakes.firecrawl_site import Failure, Page, Site

__all__ = ["Failure", "FakeFirecrawl", "Page", "Reply", "Request", "Site"]

_MISSING_ENDPOINT = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n'
    "<body>\n<pre>Cannot {method} {path}</pre>\n</body>\n</html>\n"
)
_ROUTE = re.compile(
    r"(?P<base>.*)/(?P<version>v[12])/(?P<path>crawl|batch/scrape)(?:/(?P<id>[^/]+)(?P<errors>/errors)?)?"
)

Outage = Literal["refused", "503", "hanging"]


@dataclass
class _Interference:
    reply: Reply | None
    """None: the request is carried out, but its answer gets lost."""
    applies_to: Callable[[Request], bool]
    times: float


class FakeFirecrawl:
    def __init__(
        self,
        site: Site | None = None,
        *,
        older: bool = False,
        api_key: str | None = None,
        secret: str | None = None,
        versions: tuple[str, ...] = ("v1", "v2"),
        base_path: str = "",
    ) -> None:
        self.site = site or Site.of(5)
        """The site of a crawl that starts at a URL not in `sites`."""
        self.sites: dict[str, Site] = {}
        """By the URL that a crawl starts at."""
        self.older = older
        """Jobs are from now on done as by the version of August 2025, not that of August 2026."""
        self.api_key = api_key
        """Requests without it get 401, and the refusal repeats the key they brought."""
        self.secret = secret
        """Deliveries are signed with it; the older version never signs."""
        self.versions = versions
        """The API versions that exist; of others it says in HTML that it has no such endpoint."""
        self.base_path = base_path
        """The path under which a proxy would serve it; `next` does not contain it."""
        self.results_per_page = 100
        self.repeat_first_part = False
        """`skip` is ignored, as the older version always does."""
        self.next_origin: str | None = None
        """The beginning of `next`; None: the origin of the request."""
        self.seconds_per_page = 0.0
        self.completed_after_seconds = 0.0
        """Between the job's end and the event that says so."""
        self.delay_seconds = 0.0
        """Before each answer of the API."""
        self.requests: list[Request] = []
        """As they came, refused ones included."""
        self.jobs: dict[str, Job] = {}
        self._courier = Courier()
        self._hold_after: int | None = None
        self._interferences: list[_Interference] = []
        self._outage: Outage | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._working: Counter[str] = Counter()
        self._port = 0

    def __enter__(self) -> Self:
        self._server = Server(0, self._answer)
        self._port = self._server.port
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._outage != "refused":
            self._server.stop()
        self._courier.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self.base_path}"

    @property
    def drops(self) -> Callable[[Event], bool]:
        """Which events get lost on their way."""
        return self._courier.drops

    @drops.setter
    def drops(self, drops: Callable[[Event], bool]) -> None:
        self._courier.drops = drops

    @property
    def deliveries(self) -> list[Delivery]:
        """In the order in which they ended, dropped ones included."""
        return self._courier.deliveries

    @property
    def outage(self) -> Outage | None:
        """Connections are refused, all is answered 503, or nothing is ever answered; None while it is up."""
        return self._outage

    @outage.setter
    def outage(self, outage: Outage | None) -> None:
        with self._change():
            before, self._outage = self._outage, outage
        if outage == "refused" != before:
            self._server.stop()
        elif before == "refused" != outage:
            self._server = Server(self._port, self._answer)

    @property
    def hold_after(self) -> int | None:
        """A job stops after so many pages, until this is raised or None, or the job is cancelled."""
        return self._hold_after

    @hold_after.setter
    def hold_after(self, pages: int | None) -> None:
        with self._change():
            self._hold_after = pages

    def answer_with(
        self,
        reply: Reply,
        times: float = float("inf"),
        applies_to: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        """In place of the next `times` answers to such requests, which are not carried out."""
        self._interferences.append(_Interference(reply, applies_to, times))

    def rate_limit(self, times: float, retry_after: object = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.answer_with(Reply(429, _error("Rate limit exceeded."), headers), times)

    def refuse_starts(self, status: int, reason: str = "Insufficient credits") -> None:
        self.answer_with(Reply(status, _error(reason)), applies_to=lambda request: request.starts)

    def answer_html(self, times: float = float("inf")) -> None:
        self.answer_with(Reply(200, "<html>a proxy's page</html>"), times)

    def lose_answers(self, times: float) -> None:
        """Requests are carried out, then their connection breaks."""
        self._interferences.append(_Interference(None, lambda request: True, times))

    def answer_normally(self) -> None:
        self._interferences.clear()

    def expire(self, job_id: str, says: str = "Job not found") -> None:
        """The API knows the job no more; a hosted Firecrawl says `Job expired`."""
        self.jobs[job_id].forgotten = says

    def fail(self, job_id: str, reason: str) -> None:
        """The job as a whole fails, and an event says so, as servers do that are only compatible."""
        with self._change():
            self.jobs[job_id].fail(reason)

    def wait_until_ended(self, job_id: str, seconds: float = 60.0) -> Job:
        """Until the job has nothing more to do or to say; its deliveries may be under way."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._working[job_id]:
                assert self._changed.wait(deadline - time.monotonic()), f"{job_id} does not end"
        return self.jobs[job_id]

    def wait_until_delivered(self, job_id: str, seconds: float = 60.0) -> list[Delivery]:
        """Until the job has ended and nothing of it is under way; returns its deliveries."""
        deadline = time.monotonic() + seconds
        self.wait_until_ended(job_id, seconds)
        self._courier.wait_until_idle(job_id, deadline)
        return [delivery for delivery in self.deliveries if delivery.event.job_id == job_id]

    def wait_until_scraped(self, job_id: str, pages: int, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while self.jobs[job_id].settled < pages:
                assert self._changed.wait(deadline - time.monotonic()), f"{job_id} does not get that far"

    def load_recorded(self, name: str) -> str:
        """A job that has ended as recorded in `tests/recordings`; returns its id.

        Nothing is delivered. Its documents have the text that the recording delivered.
        """
        job = recorded_job(name)
        self.jobs[job.id] = job
        return job.id

    def wait_until_asked(self, times: int = 1, seconds: float = 60.0) -> None:
        """Until the API has been called so often."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while len(self.requests) < times:
                assert self._changed.wait(deadline - time.monotonic()), f"asked {len(self.requests)} times"

    def start(self, kind: str, body: dict[str, Any]) -> Job:
        """As the API does, for `crawl` or `batch_scrape`; `body` is the request's body."""
        job = self.jobs.get(body.get("appendToId", ""))
        if job is None:
            url = body.get("url") or body["urls"][0]
            job = Job(kind, url, self.older, _target(body.get("webhook")))
        with self._change():
            self.jobs[job.id] = job
            self._plan(job, body)
            self._working[job.id] += 1
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def _plan(self, job: Job, body: dict[str, Any]) -> None:
        site = self.sites.get(job.url, self.site)
        if job.family == "crawl":
            job.append(site.outcomes[: body.get("limit", 10_000)])
            job.robots_blocked = list(site.robots_blocked)
        else:
            job.append(site.outcome_of(url) for url in body["urls"] if _valid(url))

    def _work(self, job: Job) -> None:
        try:
            self._say(job, job.body("started", []))
            while self._scrape_next(job):
                pass
            self._complete(job)
        finally:
            with self._change():
                self._working[job.id] -= 1

    def _scrape_next(self, job: Job) -> bool:
        self._closing.wait(self.seconds_per_page)
        with self._change():
            self._changed.wait_for(lambda: self._may_go_on(job))
            if not job.planned or job.cancelled or self._closing.is_set():
                return False
            body = job.scrape(job.planned.popleft())
        if body is not None:
            self._say(job, body)
        return True

    def _may_go_on(self, job: Job) -> bool:
        held = self.hold_after is not None and job.settled >= self.hold_after
        return not held or job.cancelled or not job.planned or self._closing.is_set()

    def _complete(self, job: Job) -> None:
        with self._change():
            dropped = job.drop_planned() if job.cancelled else []
            if not job.planned:
                job.completed_at = job.completed_at or now()
        for body in dropped:
            self._say(job, body)
        self._closing.wait(self.completed_after_seconds)
        if not (self._closing.is_set() or (job.older and job.said_completed)):
            job.said_completed = True
            self._say(job, job.end())

    def _say(self, job: Job, body: dict[str, Any]) -> None:
        with self._changed:
            event = job.event(body)
        if job.target is not None and job.target.wants(event):
            self._courier.send(event, job.target, None if job.older else self.secret)

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def _answer(self, request: Request, host: str) -> Reply | None:
        with self._change():
            self.requests.append(request)
        time.sleep(self.delay_seconds)
        if self._outage == "hanging":
            with self._changed:
                self._changed.wait_for(lambda: self._outage != "hanging" or self._closing.is_set())
            return None
        if self._outage == "503":
            return Reply(503, "<html>503 Service Unavailable</html>")
        interference = self._interfere(request)
        if interference and interference.reply is not None:
            return interference.reply
        reply = self._refuse_unauthenticated(request) or self._route(request, host)
        return None if interference else reply

    def _interfere(self, request: Request) -> _Interference | None:
        with self._changed:
            for interference in self._interferences:
                if interference.times > 0 and interference.applies_to(request):
                    interference.times -= 1
                    return interference
        return None

    def _refuse_unauthenticated(self, request: Request) -> Reply | None:
        if self.api_key is None or request.authorization == f"Bearer {self.api_key}":
            return None
        key = (request.authorization or "").removeprefix("Bearer ")
        return Reply(401, _error(f"Unauthorized: Invalid token {key}".strip()))

    def _route(self, request: Request, host: str) -> Reply:
        url = urlsplit(request.path)
        route = _ROUTE.fullmatch(url.path)
        if route is None or route["base"] != self.base_path or route["version"] not in self.versions:
            return _no_endpoint(request)
        kind = route["path"].replace("/", "_")
        if route["id"] is None:
            return self._start(kind, route["version"], request, host)
        if route["id"] == "active" and kind == "crawl":
            return Reply(200, {"success": True, "crawls": self._active()})
        job = self.jobs.get(route["id"])
        if route["errors"] and self.older and kind == "batch_scrape" and route["version"] == "v2":
            return _no_endpoint(request)
        if job is None or job.family != kind or job.forgotten:
            return Reply(404, _error(job.forgotten if job and job.forgotten else "Job not found"))
        if request.method == "DELETE":
            return self._cancel(job)
        with self._changed:
            if route["errors"]:
                return Reply(200, job.errors_answer())
            return Reply(200, self._results(job, route["version"], parse_qs(url.query), host))

    def _results(self, job: Job, version: str, query: dict[str, list[str]], host: str) -> dict[str, Any]:
        skip = 0 if job.older or self.repeat_first_part else int(query.get("skip", ["0"])[0])
        asked = query.get("limit")
        limit = min(int(asked[0]), self.results_per_page) if asked else self.results_per_page
        answer = job.status_answer(version, skip, limit, self.next_origin or f"http://{host}")
        if asked and "next" in answer:
            answer["next"] += f"&limit={limit}"
        return answer

    def _start(self, kind: str, version: str, request: Request, host: str) -> Reply:
        if request.method != "POST":
            return _no_endpoint(request)
        body = request.body
        if not (body.get("url") if kind == "crawl" else body.get("urls")):
            details = [{"code": "invalid_type", "message": "Required"}]
            return Reply(400, {**_error("Bad Request"), "code": "BAD_REQUEST", "details": details})
        if body.get("appendToId") and body["appendToId"] not in self.jobs:
            return Reply(404, _error("Job not found"))
        job = self.start(kind, body)
        answer = {"success": True, "id": job.id, "url": f"http://{host}/{version}/{job.path}/{job.id}"}
        if kind == "batch_scrape":
            answer["invalidURLs"] = [url for url in body["urls"] if not _valid(url)]
        return Reply(200, answer)

    def _cancel(self, job: Job) -> Reply:
        with self._change():
            if job.status == "completed" and not job.older:
                return Reply(409, {"error": "Crawl is already completed"})
            job.cancelled = True
        return Reply(200, {"status": "cancelled"})

    def _active(self) -> list[dict[str, Any]]:
        running = [job for job in self.jobs.values() if job.family == "crawl" and job.status == "scraping"]
        return [{"id": job.id, "teamId": "bypass", "url": job.url} for job in running]


def _error(reason: str) -> dict[str, Any]:
    return {"success": False, "error": reason}


def _no_endpoint(request: Request) -> Reply:
    path = request.path.partition("?")[0]
    return Reply(HTTPStatus.NOT_FOUND, _MISSING_ENDPOINT.format(method=request.method, path=path))


def _valid(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def _target(webhook: dict[str, Any] | None) -> Target | None:
    if webhook is None:
        return None
    events = webhook.get("events")
    return Target(
        webhook["url"],
        webhook.get("headers", {}),
        webhook.get("metadata", {}),
        None if events is None else tuple(events),
    )
