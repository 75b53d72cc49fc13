"""The real application over a real database, as a browser without a script asks it."""

import httpx2
import pytest

from tests.api.http.conftest import SECRET, Service, serve, service

__all__ = ["serve", "service"]

FROM_OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
FROM_OTHER_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}


@pytest.fixture
async def browser(service: Service) -> httpx2.AsyncClient:
    """Signed in; keeps cookies and follows no redirect."""
    return await signed_in(service)


async def signed_in(service: Service) -> httpx2.AsyncClient:
    client = service.anonymous
    client.headers["Accept"] = "text/html"
    answer = await client.post("/sign-in", data={"secret": SECRET}, headers=FROM_OWN_PAGE)
    assert answer.status_code == 303, answer.text
    return client
