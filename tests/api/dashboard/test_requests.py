"""Odd requests to the dashboard get a page that says so, and an action does what its button says."""

import httpx2
import pytest
from sqlalchemy import select

from crawlscope import models
from crawlscope.api.dashboard.crawl import MAX_INDENTED, readable_body
from crawlscope.core.compression import compress
from tests.api.dashboard.conftest import FROM_OWN_PAGE
from tests.api.http.conftest import Service
from tests.support.producing import deliver_pages, fail_pages

CRAWL = "crawl-1"


@pytest.mark.parametrize(
    "path", [f"/crawls/{CRAWL}/deliveries/{2**63}", f"/search?q=word&domain={'a' * 300}", "/?offset=-1"]
)
async def test_an_impossible_value_is_refused(service: Service, browser: httpx2.AsyncClient, path: str):
    await deliver_pages(service.parts.database, CRAWL, "https://example.com/a")
    answer = await browser.get(path)
    assert answer.status_code == 422
    assert "<h1" in answer.text


def test_a_large_body_is_shown_without_computing_much():
    assert readable_body(compress(b"[1]")) == "[\n  1\n]"
    shown = readable_body(compress(b"[" + b"1," * MAX_INDENTED + b"1]"))
    assert shown is not None
    assert shown.startswith("[1,1")
    assert len(shown) < MAX_INDENTED


async def test_an_origin_that_is_no_address_is_of_another_site(service: Service):
    answer = await service.anonymous.post("/sign-in", data={"secret": "x"}, headers={"Origin": "http://[::1"})
    assert answer.status_code == 403


@pytest.mark.parametrize(("cause", "state"), [("", "failed"), ("http_404", "failed"), ("odd", "queued")])
async def test_a_retry_of_one_cause_leaves_other_failures_alone(
    service: Service, browser: httpx2.AsyncClient, cause: str, state: str
):
    database = service.parts.database
    await deliver_pages(database, CRAWL, "https://example.com/a")
    await fail_pages(database, CRAWL, "odd", "no vector")
    answer = await browser.post(f"/crawls/{CRAWL}/retry", data={"cause": cause}, headers=FROM_OWN_PAGE)
    assert answer.status_code == 303
    async with database.transaction() as connection:
        assert await connection.scalar(select(models.table_of(models.Page).c.state)) == state


async def test_an_unexpected_error_is_a_page_too(
    service: Service, browser: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service.parts.insights, "crawls", None)
    answer = await browser.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "The log of the service has the reason." in answer.text
    assert "NoneType" not in answer.text
