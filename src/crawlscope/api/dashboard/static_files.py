"""The dashboard's own files. Their addresses change with their content, so browsers keep them for good."""

from starlette.responses import Response
from starlette.staticfiles import StaticFiles as StarletteStaticFiles
from starlette.types import Scope

from crawlscope.api.dashboard.rendering import STATIC

FOR_A_YEAR = "public, max-age=31536000, immutable"


class StaticFiles(StarletteStaticFiles):
    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        if b"v=" in scope["query_string"]:
            answer.headers["Cache-Control"] = FOR_A_YEAR
        return answer
