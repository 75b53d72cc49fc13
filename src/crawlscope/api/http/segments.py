"""Texts that are one segment of a path: a slash that the client escaped separates nothing."""

from typing import Annotated
from urllib.parse import unquote

from pydantic import BeforeValidator
from starlette.types import ASGIApp, Receive, Scope, Send

Segment = Annotated[str, BeforeValidator(unquote)]
"""As a path parameter, such as a crawl's id."""


class WholeSegments:
    """ASGI middleware: leaves `%2F` and `%25` in the path as they are, so that a `Segment` is read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": _decoded_but_slashes(scope["raw_path"].decode("latin-1"))}
        await self._app(scope, receive, send)


def _decoded_but_slashes(raw_path: str) -> str:
    return unquote(raw_path.replace("%25", "%2525").replace("%2F", "%252F").replace("%2f", "%252F"))
