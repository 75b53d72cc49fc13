"""The deliveries and answers of real Firecrawls in `tests/recordings`."""

import gzip
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parents[1] / "recordings"
RECORDED_HMAC_SECRET = "rig-secret-0123456789"


def read_recorded(name: str) -> dict[str, Any]:
    """The API's answers about one crawl."""
    recorded: dict[str, Any] = json.loads(gzip.decompress((RECORDINGS / f"{name}.api.json.gz").read_bytes()))
    return recorded


def read_deliveries(name: str) -> list[dict[str, Any]]:
    """In the order of arrival, each with its event parsed as `event`."""
    lines = gzip.decompress((RECORDINGS / f"{name}.jsonl.gz").read_bytes()).splitlines()
    return [{**line, "event": json.loads(line["body"])} for line in map(json.loads, lines)]


@dataclass(frozen=True)
class Recorded:
    """One recorded delivery, for a crawl id of the journey's own."""

    body: bytes
    headers: dict[str, str]

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)


def recording(name: str, crawl_id: str) -> list[Recorded]:
    """The deliveries with another crawl id, in the order of arrival; signed where they were recorded so."""
    return [_adopted(line, crawl_id) for line in read_deliveries(name)]


def _adopted(line: dict[str, Any], crawl_id: str) -> Recorded:
    event = line["event"]
    body = line["body"].replace(event.get("id") or event["jobId"], crawl_id).encode()
    headers = {name.lower(): value for name, value in line["headers"].items()}
    if "x-firecrawl-signature" in headers:
        headers["x-firecrawl-signature"] = signature(body)
    return Recorded(body, headers)


def signature(body: bytes, secret: str = RECORDED_HMAC_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
