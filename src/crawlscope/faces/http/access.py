"""Who may call: every path but a few open ones asks for the API secret."""

from typing import Annotated

from fastapi import Depends, Header, HTTPException

from crawlscope.faces.http.parts import ServiceParts
from crawlscope.receive.signature import same_secret

SECRET_HEADER = "X-API-Secret"  # noqa: S105 - the header's name
BEARER = "bearer "


def carries_secret(secret: str, header: str | None, authorization: str | None) -> bool:
    if same_secret(header, secret):
        return True
    if authorization and authorization[: len(BEARER)].lower() == BEARER:
        return same_secret(authorization[len(BEARER) :].strip(), secret)
    return False


async def require_secret(
    parts: ServiceParts,
    x_api_secret: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> None:
    if not carries_secret(parts.secret, x_api_secret, authorization):
        raise HTTPException(
            401,
            f"send the API secret as {SECRET_HEADER} or as a bearer token",
            headers={"WWW-Authenticate": "Bearer"},
        )


Authenticated = Depends(require_secret)
