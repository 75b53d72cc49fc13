"""What both webhook doors ask of a request before they read what it says."""

import shutil

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from crawlscope.api.http.access import same_secret
from crawlscope.api.http.requests import note_refusal
from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.processes.parts import Parts
from crawlscope.webhooks.refusals import Cause


def require_token(token: str, request: Request, parts: Parts) -> None:
    expected = parts.settings.receive_token
    if expected is None or not same_secret(token, expected.get_secret_value()):
        note_refusal(request, Cause.WRONG_TOKEN if expected else Cause.NO_TOKEN)
        raise HTTPException(401, "this delivery URL is not valid")


async def read_body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "the body ended before it was complete") from None


def require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HTTPException(415, f"send application/json, not {kind[:100]}")


def require_disk(parts: Parts) -> None:
    """A nearly full disk must not be filled: the database would stop, not only the door."""
    settings = parts.settings
    if settings.embedded_database:
        free = shutil.disk_usage(settings.data_dir).free
        if free < settings.min_free_disk_bytes:
            raise DatabaseUnavailable(
                f"only {free} bytes are free in {settings.data_dir}: make room, then send again"
            )
