"""The result of an action, for the next page: a signed cookie that is deleted when it is shown."""

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from itsdangerous import BadData, URLSafeTimedSerializer

COOKIE = "crawlscope_notice"
SECONDS = 60
MAX_LENGTH = 600


def redirect_with_notice(request: Request, path: str, notice: str) -> Response:
    answer = RedirectResponse(path, 303)
    signed = _signer(request).dumps(notice[:MAX_LENGTH])
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, signed, max_age=SECONDS, httponly=True, samesite="strict", secure=secure)
    return answer


def notice_of(request: Request) -> str | None:
    try:
        return str(_signer(request).loads(request.cookies[COOKIE], max_age=SECONDS))
    except (KeyError, BadData):
        return None


def _signer(request: Request) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(request.app.state.parts.secret, salt="notice")
