"""Recorded crawls: the API's answers and the deliveries in `tests/recordings`."""

import gzip
import json
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.support.fakes.firecrawl_job import Job, Missed
from tests.support.fakes.firecrawl_site import Failure, made_up_markdown

RECORDINGS = Path(__file__).parents[2] / "recordings"


def read_recorded(name: str) -> dict[str, Any]:
    """The status answers of `tests/recordings`."""
    recorded: dict[str, Any] = json.loads(gzip.decompress((RECORDINGS / f"{name}.api.json.gz").read_bytes()))
    return recorded


def read_deliveries(name: str) -> list[dict[str, Any]]:
    """The lines of `tests/recordings`, each with its event parsed as `event`."""
    lines = gzip.decompress((RECORDINGS / f"{name}.jsonl.gz").read_bytes()).splitlines()
    return [{**line, "event": json.loads(line["body"])} for line in map(json.loads, lines)]


def recorded_job(name: str) -> Job:
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
