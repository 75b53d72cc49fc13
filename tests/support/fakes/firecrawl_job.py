"""One crawl or batch of a fake Firecrawl: what it has found so far, and what the API says of it."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from tests.support.fakes.firecrawl_answers import NEWER_DROPPED, NEWER_DROPPED_WRAPPED, OLDER_DROPPED
from tests.support.fakes.firecrawl_deliveries import Event, Target
from tests.support.fakes.firecrawl_site import Failure, Outcome, Page, made_up_markdown
from tests.support.recordings import read_deliveries, read_recorded


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Missed:
    id: str
    at: datetime
    failure: Failure

    def as_json(self) -> dict[str, Any]:
        failure = self.failure
        code = {} if failure.code is None else {"code": failure.code}
        reported = {"id": self.id, "timestamp": stamp(self.at), "url": failure.url, **code}
        return {**reported, "error": failure.error}


@dataclass
class Job:
    """Not safe to change from several threads at once: the server holds a lock."""

    family: str
    """`crawl` or `batch_scrape`."""
    url: str
    older: bool
    """As the version of August 2025 does it, in place of that of August 2026."""
    target: Target | None = None
    planned: deque[Outcome] = field(default_factory=deque)
    robots_blocked: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid4()))
    documents: list[dict[str, Any]] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    created_at: datetime = field(default_factory=now)
    completed_at: datetime | None = None
    """When it was through with all of its pages."""
    expires_at: datetime | None = None
    scraped_at: datetime | None = None
    """When the last document was made; the newer version takes that for the end of a job that completed."""
    cancelled: bool = False
    failed: str | None = None
    """The error of the whole job."""
    forgotten: str | None = None
    """The API's error in place of an answer."""
    said_completed: bool = False
    events: int = 0

    @property
    def path(self) -> str:
        return self.family.replace("_", "/")

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.failed is not None:
            return "failed"
        return "scraping" if self.completed_at is None else "completed"

    @property
    def settled(self) -> int:
        return len(self.documents) + len(self.missed)

    def append(self, outcomes: Iterable[Outcome]) -> None:
        self.planned.extend(outcomes)
        self.completed_at = None

    def scrape(self, outcome: Outcome) -> dict[str, Any] | None:
        """The page event's body; None where this version says nothing of such a page."""
        if isinstance(outcome, Page):
            document = outcome.document(str(uuid4()))
            self.documents.append(document)
            self.scraped_at = now()
            return self.body("page", [document])
        return self._miss(outcome, outcome.error)

    def drop_planned(self) -> list[dict[str, Any]]:
        """The page events' bodies."""
        words = OLDER_DROPPED if self.older else NEWER_DROPPED_WRAPPED
        dropped = [Failure(outcome.url, "UNKNOWN_ERROR", words) for outcome in self.planned]
        self.planned.clear()
        bodies = [self._miss(failure, NEWER_DROPPED) for failure in dropped]
        return [body for body in bodies if body is not None]

    def fail(self, reason: str) -> None:
        self.failed = reason
        self.planned.clear()

    def end(self) -> dict[str, Any]:
        """The last event's body: also a cancelled job says that it completed, with success."""
        return self.body("completed" if self.failed is None else "failed", [], self.failed)

    def body(self, action: str, data: list[Any], error: str | None = None) -> dict[str, Any]:
        body = {"success": error is None, "type": f"{self.family}.{action}", "id": self.id}
        webhook_id = {} if self.older else {"webhookId": str(uuid4())}
        reported = {} if error is None else {"error": error}
        metadata = dict(self.target.metadata) if self.target else {}
        return {**body, **webhook_id, "data": data, **reported, "metadata": metadata}

    def event(self, body: dict[str, Any]) -> Event:
        self.events += 1
        return Event(self.id, self.events - 1, body)

    def _miss(self, failure: Failure, reported: str) -> dict[str, Any] | None:
        self.missed.append(Missed(str(uuid4()), now(), failure))
        return None if self.older else self.body("page", [{"metadata": {"sourceURL": failure.url}}], reported)

    def status_answer(self, version: str, skip: int, limit: int, base_url: str) -> dict[str, Any]:
        completed, total = len(self.documents), len(self.documents) + len(self.planned)
        shown = self.documents[skip : skip + limit]
        more = skip + len(shown) < total or (not self.older and self.status in ("scraping", "cancelled"))
        following = f"{base_url}/{version}/{self.path}/{self.id}?skip={skip + len(shown)}"
        expiry = self.expires_at or self.created_at + timedelta(days=1)
        return {
            "success": True,
            "status": self.status,
            "completed": completed,
            "total": total,
            "creditsUsed": completed if self.older else -1,
            "expiresAt": stamp(expiry.replace(microsecond=0)),
            **({"next": following} if more else {}),
            **({} if self.older or version == "v1" else self._times()),
            **({} if self.failed is None else {"error": self.failed}),
            "data": shown,
        }

    def errors_answer(self) -> dict[str, Any]:
        return {"errors": [missed.as_json() for missed in self.missed], "robotsBlocked": self.robots_blocked}

    def _times(self) -> dict[str, Any]:
        """Failed pages are passed over: a job of which all pages failed ended when it began."""
        until, times = now(), {"createdAt": stamp(self.created_at)}
        if self.completed_at is not None:
            until = self.completed_at if self.cancelled else (self.scraped_at or self.created_at)
            times["completedAt"] = stamp(until)
        return {**times, "duration": round((until - self.created_at).total_seconds(), 3)}


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def recorded_job(name: str) -> Job:
    """One that has ended as recorded."""
    recorded = read_recorded(name)
    final = recorded["final_status"]
    texts = {
        document["metadata"]["scrapeId"]: document["markdown"]
        for delivery in read_deliveries(name)
        for document in delivery["event"]["data"]
        if "markdown" in document
    }
    order = recorded["request"]["body"]
    errors = recorded["errors"][1] if recorded["errors"][0] == HTTPStatus.OK else {}
    return Job(
        "crawl" if "url" in order else "batch_scrape",
        order.get("url") or order["urls"][0],
        older=not name.startswith("b-"),
        id=recorded["response"]["body"]["id"],
        documents=[_recorded_document(document, texts) for document in recorded["documents"]],
        missed=[_recorded_miss(error) for error in errors.get("errors", [])],
        robots_blocked=errors.get("robotsBlocked", []),
        created_at=_moment(final.get("createdAt"), recorded["t_request"]),
        completed_at=_moment(final.get("completedAt"), recorded["t_status_done"]),
        scraped_at=_moment(final.get("completedAt"), recorded["t_status_done"]),
        expires_at=_moment(final["expiresAt"], 0.0),
        cancelled=final["status"] == "cancelled",
    )


def _recorded_document(recorded: dict[str, Any], texts: dict[str, str]) -> dict[str, Any]:
    metadata = recorded["metadata"]
    made_up = made_up_markdown(metadata["sourceURL"], recorded["md_len"])
    return {"markdown": texts.get(metadata["scrapeId"], made_up), "metadata": metadata}


def _recorded_miss(error: dict[str, Any]) -> Missed:
    failure = Failure(error["url"], error.get("code"), error["error"])
    return Missed(error["id"], _moment(error["timestamp"], 0.0), failure)


def _moment(text: str | None, seconds: float) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.fromtimestamp(seconds, UTC)
