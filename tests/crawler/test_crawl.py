import asyncio
import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import html_to_markdown
import pytest
from html_to_markdown import ConversionOptions, ConversionResult

from crawlscope.core.errors import UsageError
from crawlscope.crawler.crawl import CrawlPlan, CrawlProgress, run_crawl
from crawlscope.crawler.fetch import FetchedPage
from crawlscope.crawler.polite import RequestTimes
from crawlscope.crawler.reading import markdown
from crawlscope.crawler.reading.markdown import PageText
from crawlscope.crawler.reading.page import read_page
from crawlscope.crawler.sender import DeliveryTooLarge
from tests.crawler.harness import Crawled, Event, FastClock, crawl
from tests.support.fakes.loopback import free_port
from tests.support.fakes.website import Page, Website, html, redirect
from tests.support.polling import eventually


async def test_events_of_a_crawl_have_firecrawls_shape() -> None:
    home = Page(
        '<html lang="en"><head><title>Home</title><meta name="description" content="All of it"></head>'
        "<body><h1>Hello</h1><a href='/a'>a</a></body></html>"
    )
    with Website({"/": home, "/a": html("<h1>A</h1>", title="A")}) as site:
        crawled = await crawl(site.url, metadata={"url": "x"})

    assert crawled.types == ["crawl.started", "crawl.page", "crawl.page", "crawl.completed"]
    for event in crawled.events:
        assert set(event) == {"success", "type", "id", "webhookId", "data", "metadata"}
        assert (event["success"], event["id"], event["metadata"]) == (True, "crawl-1", {"url": "x"})
    document = crawled.document("/")
    assert document["markdown"] == "# Hello\n\n[a](" + site.url + "/a)"
    scrape_id = document["metadata"].pop("scrapeId")
    assert len(scrape_id) == 36
    assert document["metadata"] == {
        "title": "Home",
        "description": "All of it",
        "language": "en",
        "sourceURL": site.url + "/",
        "url": site.url + "/",
        "statusCode": 200,
        "contentType": "text/html; charset=utf-8",
    }
    assert crawled.summary is not None
    assert (crawled.summary.status, crawled.summary.found, crawled.summary.fetched) == ("completed", 2, 2)


async def test_a_crawl_run_again_sends_recognisable_duplicates() -> None:
    with Website({"/": html(links=["/a", "/gone"]), "/a": html(), "/gone": Page(reset=True)}) as site:
        first, second = await crawl(site.url), await crawl(site.url)
        other = await crawl(site.url, crawl_id="crawl-2")
        site.pages["/gone"] = html("back")
        recovered = await crawl(site.url)

    def ids(crawled: Crawled) -> set[str]:
        return {event["webhookId"] for event in crawled.events}

    assert ids(first) == ids(second)
    assert len(ids(first)) == len(first.events)
    assert not ids(first) & ids(other)
    assert first.metadata("/a")["scrapeId"] == second.metadata("/a")["scrapeId"]
    assert len(ids(recovered) - ids(first)) == 1, "a page that succeeds after it failed is news"


async def test_every_http_status_is_a_page() -> None:
    statuses = [200, 204, 304, 401, 403, 404, 410, 429, 500, 503, 999]
    pages = {
        f"/{status}": Page("" if status in (204, 304) else f"<h1>says {status}</h1>", status=status)
        for status in statuses
    }
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url)

    assert {crawled.metadata(path)["statusCode"] for path in pages} == set(statuses)
    assert crawled.document("/503")["markdown"] == "# says 503"
    assert not crawled.failures
    asked = {status: site.requests.count(f"/{status}") for status in statuses}
    again = {429: 8, 500: 3, 503: 4}
    assert asked == {status: again.get(status, 1) for status in statuses}, "only what may pass is tried again"


async def test_pages_without_an_answer_fail_with_their_reason() -> None:
    pages = {
        "/reset": Page(reset=True),
        "/slow": Page(delay_seconds=30),
        "/drip": Page("x" * 4_000, drip_seconds=0.05),
        "/short": Page("<p>half of", truncated=True),
        "/loop": redirect("/loop"),
        "/ftp": redirect("ftp://example.org/file"),
        "/zip": Page(b"not gzip at all", headers={"Content-Encoding": "gzip"}),
        "/huge": Page(headers={"Content-Length": str(30 * 1024**2)}),
    }
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url, timeout_seconds=2)
        asked = site.requests

    failures = crawled.failures
    assert set(failures) == set(pages)
    assert failures["/reset"] == "connection reset"
    assert failures["/slow"] == failures["/drip"] == "no complete answer within 2 seconds"
    assert "closed early" in failures["/short"]
    assert failures["/loop"] == "more than 10 redirects"
    assert "cannot be requested" in failures["/ftp"]
    assert "decompressed" in failures["/zip"]
    assert "too large" in failures["/huge"]
    assert asked.count("/reset") == 2, "connections are tried twice"
    assert asked.count("/slow") == 1, "timeouts are not"
    assert crawled.pages["/slow"]["data"] == [{"metadata": {"sourceURL": site.url + "/slow"}}]
    assert crawled.summary is not None
    assert (crawled.summary.fetched, crawled.summary.failed) == (1, len(pages))
    assert crawled.types[-1] == "crawl.completed"


async def test_a_body_that_grows_too_large_is_cut_off() -> None:
    with Website({"/": html(links=["/big"]), "/big": Page(b"x" * (21 * 1024**2))}) as site:
        crawled = await crawl(site.url)
    assert "too large" in crawled.failures["/big"]


async def test_an_unreachable_start_fails_the_crawl_and_says_why() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    crawled = await crawl(url)
    assert crawled.types == ["crawl.started", "crawl.page", "crawl.failed"]
    assert crawled.events[1]["error"] == "connection refused"
    assert crawled.events[2]["error"] == f"{url} could not be crawled: connection refused"
    assert crawled.events[2]["success"] is False
    assert crawled.summary is not None
    assert (crawled.summary.status, crawled.summary.failed) == ("failed", 1)


async def test_an_unknown_host_name_fails_the_crawl() -> None:
    crawled = await crawl("http://no-such-host.invalid/")
    assert "the name could not be resolved" in crawled.events[-1]["error"]


@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "example.org", "http://[", "http://x:port/", "", "http://"]
)
async def test_what_is_no_web_address_is_refused_before_any_event(url: str) -> None:
    crawled = Crawled()
    with pytest.raises(UsageError, match="not an http"):
        await run_crawl(CrawlPlan("c", url), crawled.deliver)
    assert crawled.events == []


@pytest.mark.parametrize("limit", [1, 7, 25])
async def test_the_limit_is_exact(limit: int) -> None:
    progress: list[CrawlProgress] = []
    pages = {f"/{number}": html(links=[f"/{n}" for n in range(60)]) for number in range(60)}
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(
            site.url, limit=limit, on_progress=lambda now: progress.append(CrawlProgress(**vars(now)))
        )
        assert len(site.requests) == limit
    assert len(crawled.pages) == limit
    assert all(now.found <= limit for now in progress)
    assert replace(progress[-1], times=RequestTimes()) == CrawlProgress(found=limit, fetched=limit, failed=0)


async def test_an_endless_site_ends_at_the_limit() -> None:
    def calendar(path: str) -> Page:
        return html(links=[f"{path}?next={n}&from={len(path)}" for n in range(5)])

    with Website(answer=calendar) as site:
        crawled = await crawl(site.url, limit=40)
    assert len(crawled.pages) == 40


async def test_ten_thousand_links_on_one_page() -> None:
    links = [f"/p/{number}" for number in range(10_000)]
    with Website({"/": html(links=links)}, answer=lambda _: Page("<p>x")) as site:
        crawled = await crawl(site.url, limit=120)
        assert len(site.requests) == 120
    assert len(crawled.pages) == 120


async def test_links_stay_within_the_site_and_are_taken_as_meant() -> None:
    with Website({"/": html("elsewhere")}) as other, Website() as site:
        hrefs = [
            *("/a", "/a#top", "/./b/../a", f"http://127.0.0.1:{site.port}/a", "  /a\n", "//127.0.0.1:1/x"),
            *(
                "mailto:a@b.c",
                "javascript:void(0)",
                "tel:1",
                "data:text/plain,x",
                "http://[",
                "http://a:b:c/",
                "#",
            ),
            *(
                other.url + "/",
                "/picture.png",
                "/archive.tar.gz",
                "/q?b=2&amp;a=1",
                "/q?a=1&amp;b=2",
                "/ü",
                "",
                "?",
            ),
            f"http://user:secret@127.0.0.1:{site.port}/login",
        ]
        site.pages = {"/": html(links=hrefs)}
        crawled = await crawl(site.url)
        assert sorted(site.requests) == ["/", "/%C3%BC", "/a", "/login", "/q?a=1&b=2", "/q?b=2&a=1"]
        assert other.requests == []
    assert crawled.summary is not None
    assert crawled.summary.found == 6


async def test_the_base_of_a_page_and_its_wish_not_to_be_followed_are_respected() -> None:
    pages = {
        "/": html(links=["/docs/", "/shy"]),
        "/docs/": Page('<head><base href="/manual/"></head><a href="one">1</a><map><area href="two"></map>'),
        "/shy": Page('<meta name="robots" content="noindex, nofollow"><a href="/hidden">h</a>'),
    }
    with Website(pages) as site:
        await crawl(site.url)
        assert set(site.requests) == {"/", "/docs/", "/shy", "/manual/one", "/manual/two"}


async def test_the_path_of_the_start_is_no_boundary() -> None:
    with Website({"/docs/intro": html(links=["/other"]), "/other": html()}) as site:
        crawled = await crawl(site.url + "/docs/intro")
    assert set(crawled.pages) == {"/docs/intro", "/other"}


async def test_redirects_are_followed_and_recorded_under_the_address_asked_for() -> None:
    pages = {
        "/": html(links=["/old", "/%C3%A9"]),
        "/old": redirect("/new", status=301),
        "/new": html("moved", links=["/from-new"]),
        "/from-new": html(),
        "/%C3%A9": redirect("caf\u00e9?q=\u00e9#top".encode().decode("latin-1"), status=308),
        "/caf%C3%A9?q=%C3%A9": html("coffee"),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        assert crawled.metadata("/old")["url"] == site.url + "/new"
        assert crawled.metadata("/%C3%A9")["url"] == site.url + "/caf%C3%A9?q=%C3%A9"
    assert set(crawled.pages) == {"/", "/old", "/from-new", "/%C3%A9"}


async def test_a_redirect_to_another_site_is_not_followed_but_recorded() -> None:
    with Website({"/": html("foreign")}) as other:
        with Website({"/": html(links=["/away"]), "/away": redirect(other.url + "/")}) as site:
            crawled = await crawl(site.url)
        assert other.requests == []
        assert crawled.pages["/away"]["error"] == {
            "code": "external_link",
            "message": f"not followed: it leads to another site, {other.url}/",
        }
    assert crawled.types[-1] == "crawl.completed"


async def test_each_site_that_a_start_is_sent_through_may_forbid_it() -> None:
    with Website({"/": html("Members only")}, robots="User-agent: *\nDisallow: /") as last:
        with Website({"/": redirect(last.url + "/")}) as old:
            crawled = await crawl(old.url)
        assert last.requests == [], "its robots.txt is read before the page is asked for"
    assert crawled.failures == {"/": f"blocked by {last.url}/robots.txt"}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "answered 302 without a target"),
        ({"Location": "http://["}, "answered 302 to 'http://['"),
        ({"Location": "mailto:a@b.example"}, "answered 302 to 'mailto:a@b.example'"),
    ],
)
async def test_a_redirect_to_nowhere_fails(headers: dict[str, str], reason: str) -> None:
    with Website({"/": html(links=["/lost"]), "/lost": Page("Found", status=302, headers=headers)}) as site:
        crawled = await crawl(site.url)
    assert crawled.failures["/lost"].startswith(reason)


async def test_a_page_that_sets_a_cookie_before_it_shows_itself() -> None:
    class Doorman(Website):
        def page_for(self, path: str) -> Page:
            page = super().page_for(path)
            known = "seen=1" in self.headers[-1].get("cookie", "") if self.headers else False
            return page if path != "/in" or known else redirect_with_cookie

    redirect_with_cookie = Page(status=302, headers={"Location": "/in", "Set-Cookie": "seen=1; Path=/"})
    with Doorman({"/": html(links=["/in"]), "/in": html("The avocet wades.")}) as site:
        crawled = await crawl(site.url)
    assert "avocet" in crawled.document("/in")["markdown"]


async def test_a_page_that_refreshes_leads_on() -> None:
    pages = {
        "/": Page('<meta http-equiv="refresh" content="0; url=en/contents.html">'),
        "/en/contents.html": html("Contents", links=["by-header.html"]),
        "/en/by-header.html": Page("<p>Moved", headers={"Refresh": "5;URL='/last.html'"}),
        "/last.html": Page('<p>Round and round<meta http-equiv=refresh content="1;url=/">'),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == set(pages)


async def test_a_start_that_refreshes_to_another_site_has_moved_there() -> None:
    pages = {"/manual/": html("Manual", links=["/a"]), "/a": html()}
    with Website(pages) as new:
        moved = Page(f'<title>Moved</title><meta http-equiv="refresh" content="0;url={new.url}/manual/">Bye')
        with Website({"/": moved}) as old:
            crawled = await crawl(old.url)
        assert crawled.metadata("/")["url"] == new.url + "/manual/"
    assert len(crawled.pages) == 2
    assert not crawled.failures


async def test_frames_are_followed() -> None:
    frames = '<frame src="list.html"><frame src="main.html"><noframes><a href="plain.html">P</a></noframes>'
    nested = '<p>Text <iframe src="deep/inner.html"></iframe>'
    pages = {
        "/": Page(f"<html><head><title>API</title></head><frameset>{frames}</frameset></html>"),
        "/list.html": html(links=["pool.html"]),
        "/main.html": Page(nested),
        "/plain.html": html("Without frames"),
        "/pool.html": html("Keeps burrows ready"),
        "/deep/inner.html": html("Inner"),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == set(pages)


@pytest.mark.parametrize(
    "trap",
    [
        Page('<META NAME="ROBOTS" CONTENT="NOINDEX, NOFOLLOW"><a href="/deeper">deeper</a>'),
        Page('<a rel="ugc NoFollow" href="/deeper">deeper</a>'),
        Page("<meta content=None name=robots><a href='/deeper'>deeper</a>"),
        html(links=["/deeper"], headers={"X-Robots-Tag": "NoFollow"}),
        html(links=["/deeper"], headers={"X-Robots-Tag": "crawlscope: none"}),
        html(
            links=["/deeper"], headers={"X-Robots-Tag": "unavailable_after: 25 Jun 2040 15:00:00 PST, none"}
        ),
    ],
)
async def test_what_asks_not_to_be_followed_is_not_but_it_is_read(trap: Page) -> None:
    with Website({"/": html(links=["/trap"]), "/trap": trap, "/deeper": html()}) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/trap"}
    assert "deeper" in crawled.document("/trap")["markdown"]


async def test_what_is_asked_of_other_robots_is_not_meant() -> None:
    page = html(links=["/deeper"], headers={"X-Robots-Tag": "googlebot: noindex, nofollow"})
    with Website({"/": page, "/deeper": html()}) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/deeper"}


async def test_a_start_that_has_moved_takes_the_crawl_to_its_new_site() -> None:
    with (
        Website({"/": html(links=["/a"]), "/a": html()}) as new,
        Website({"/": redirect(new.url + "/")}) as old,
    ):
        crawled = await crawl(old.url)
        assert new.requests == ["/", "/a"]
    assert len(crawled.pages) == 2


async def test_the_new_site_of_a_start_sets_the_pace() -> None:
    pages = {"/": html(links=["/a", "/b"]), "/a": html(), "/b": html()}
    with (
        Website(pages, robots="User-agent: *\nCrawl-delay: 0.4") as new,
        Website({"/": redirect(new.url + "/")}) as old,
    ):
        clock = FastClock()
        crawled = await crawl(old.url, clock=clock)
        assert clock.time >= 0.8
        assert new.most_at_once == 1
        assert sorted(new.requests) == ["/", "/a", "/b"]
    assert len(crawled.pages) == 3


async def test_the_new_site_of_a_start_may_forbid_it() -> None:
    with (
        Website({"/": html(links=["/a"])}, robots="User-agent: *\nDisallow: /") as new,
        Website({"/": redirect(new.url + "/")}) as old,
    ):
        crawled = await crawl(old.url)
    assert crawled.failures == {"/": f"blocked by {new.url}/robots.txt"}
    assert crawled.types[-1] == "crawl.failed"


async def test_a_redirect_leads_nowhere_that_robots_txt_forbids() -> None:
    pages = {"/": html(links=["/open"]), "/open": redirect("/private"), "/private": html(links=["/more"])}
    with Website(pages, robots="User-agent: *\nDisallow: /private") as site:
        crawled = await crawl(site.url)
        assert "/more" not in site.requests
    assert crawled.failures == {"/open": f"blocked by {site.url}/robots.txt"}
    assert crawled.summary is not None
    assert crawled.summary.robots_blocked == 1


async def test_robots_txt_is_obeyed_and_what_it_forbids_is_counted() -> None:
    robots = "User-agent: Crawlscope\nDisallow: /private\n\nUser-agent: *\nDisallow: /"
    pages = {"/": html(links=["/a", "/private/1", "/private/2"]), "/a": html(links=["/private/1"])}
    with Website(pages, robots=robots) as site:
        crawled = await crawl(site.url, limit=10)
        assert sorted(site.requests) == ["/", "/a"]
    assert crawled.summary is not None
    assert (crawled.summary.found, crawled.summary.robots_blocked) == (2, 2)


async def test_a_start_that_robots_txt_forbids_fails_the_crawl() -> None:
    with Website({"/": html()}, robots="User-agent: *\nDisallow: /") as site:
        crawled = await crawl(site.url)
        assert site.requests == []
    assert crawled.types == ["crawl.started", "crawl.page", "crawl.failed"]
    assert crawled.failures["/"] == f"blocked by {site.url}/robots.txt"
    assert "robots.txt" in crawled.events[-1]["error"]


async def test_a_robots_txt_that_the_server_cannot_give_forbids_everything() -> None:
    with Website({"/": html()}, robots=Page(status=503)) as site:
        crawled = await crawl(site.url)
    assert "robots.txt answered 503" in crawled.failures["/"]


@pytest.mark.parametrize(
    ("robots", "timeout_seconds", "reason"),
    [
        (Page(delay_seconds=30), 0.5, "no complete answer within 0.5 seconds"),
        (redirect("/robots.txt"), 30, "more than 10 redirects"),
        (Page(b"no gzip", headers={"Content-Encoding": "gzip"}), 30, "decompressed"),
        (Page("User-agent: *", truncated=True), 30, "closed early"),
    ],
)
async def test_a_robots_txt_that_cannot_be_read_forbids_everything(
    robots: Page, timeout_seconds: float, reason: str
) -> None:
    with Website({"/": html()}, robots=robots) as site:
        crawled = await crawl(site.url, timeout_seconds=timeout_seconds)
        assert site.requests == []
    assert f"{site.url}/robots.txt cannot be read" in crawled.failures["/"]
    assert reason in crawled.failures["/"]


async def test_a_robots_txt_that_is_had_at_the_second_try_counts() -> None:
    class Hiccup(Website):
        def page_for(self, path: str) -> Page:
            page = super().page_for(path)
            if path == "/robots.txt" and page.reset:
                self.pages[path] = Page("User-agent: *\nDisallow: /a")
            return page

    with Hiccup({"/": html(links=["/a"]), "/a": html()}, robots=Page(reset=True)) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/"}


async def test_of_an_endless_robots_txt_the_first_half_megabyte_counts() -> None:
    rules = "User-agent: *\nDisallow: /private\n"
    cut = "Disallow: /"
    comment = "#" * (512 * 1024 - len(rules) - len(cut) - 1) + "\n"
    robots = f"{rules}{comment}{cut}other\n" + "# and so on\n" * 2_000_000
    pages = {"/": html(links=["/private", "/other"]), "/private": html(), "/other": html()}
    with Website(pages, robots=robots) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/other"}


async def test_the_crawl_delay_of_robots_txt_is_kept() -> None:
    pages = {"/": html(links=["/a", "/b"]), "/a": html(), "/b": html()}
    with Website(pages, robots="User-agent: *\nCrawl-delay: 0.4") as site:
        clock = FastClock()
        crawled = await crawl(site.url, clock=clock)
        assert clock.time >= 0.8
        assert site.most_at_once == 1
    assert len(crawled.pages) == 3


async def test_content_types() -> None:
    pages = {
        "/text": Page("plain *text*\n", content_type="text/plain"),
        "/markdown": Page("# Title", content_type="text/markdown"),
        "/json": Page('{"a": 1}', content_type="application/json"),
        "/pdf": Page(b"%PDF-1.7", content_type="application/pdf"),
        "/untold": Page("<h1>Untold</h1>", content_type=None),
        "/bytes": Page(b"\x00\x01\x02", content_type=None),
        "/dump": Page(bytes(range(32)), content_type="text/plain"),
        "/wide": Page("wide".encode("utf-16"), content_type="text/plain"),
        "/latin": Page(
            "<p>d\u00e9j\u00e0 vu".encode("latin-1"), content_type="text/html; charset=iso-8859-1"
        ),
        "/meta": Page('<meta charset="cp1251"><p>привет'.encode("cp1251"), content_type="text/html"),
        "/empty": Page(""),
    }
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url)

    texts = {path: crawled.document(path)["markdown"] for path in pages}
    assert texts == {
        "/text": "plain *text*\n",
        "/markdown": "# Title",
        "/json": '{"a": 1}',
        "/pdf": "",
        "/untold": "# Untold",
        "/bytes": "",
        "/dump": "",
        "/wide": "wide",
        "/latin": "déjà vu",
        "/meta": "привет",
        "/empty": "",
    }
    assert crawled.metadata("/pdf")["contentType"] == "application/pdf"
    assert "contentType" not in crawled.metadata("/untold")


async def test_a_start_that_is_no_text_is_still_a_page() -> None:
    with Website({"/report.pdf": Page(b"%PDF", content_type="application/pdf")}) as site:
        crawled = await crawl(site.url + "/report.pdf")
    assert crawled.document("/report.pdf")["markdown"] == ""
    assert crawled.types[-1] == "crawl.completed"


async def test_the_crawler_says_who_it_is() -> None:
    with Website({"/": html()}) as site:
        await crawl(site.url)
        (headers,) = site.headers
    assert headers["user-agent"].startswith("Crawlscope/")
    assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::ffff:127.0.0.1]:{port}/"]
)
async def test_private_addresses_are_refused_before_a_connection_is_made(url: str) -> None:
    with Website({"/": html()}) as site:
        crawled = await crawl(url.format(port=site.port), allow_private=False)
        assert site.requests == []
    assert "is a private address; " in crawled.events[-1]["error"]
    assert crawled.types == ["crawl.started", "crawl.page", "crawl.failed"]


async def test_places_are_used_from_the_start_and_never_exceeded() -> None:
    class Full(Website):
        """The first pages are answered when six were asked for at once."""

        six_at_once = threading.Event()

        def page_for(self, path: str) -> Page:
            if self.most_at_once >= 6:
                self.six_at_once.set()
            if path in pages:
                self.six_at_once.wait(30)
            return super().page_for(path)

    pages = {f"/{number}": Page("<p>x", delay_seconds=0.02) for number in range(24)}
    with Full({"/": html(links=pages), **pages}) as site:
        await crawl(site.url, concurrency=6)
        assert site.most_at_once == 6
        assert site.six_at_once.is_set()


async def test_no_page_waits_for_large_ones_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class LargeFirst(Website):
        def page_for(self, path: str) -> Page:
            if path in small:
                assert a_large_one_is_read.wait(60)
            return super().page_for(path)

    small = {f"/{number}": replace(html(f"page {number}"), delay_seconds=0.2) for number in range(6)}
    large = {f"/large{number}": html(f"{number} " * 700_000) for number in range(3)}
    crawled, a_large_one_is_read, small_ones_are_done = Crawled(), threading.Event(), threading.Event()

    def read(page: FetchedPage) -> PageText:
        if "/large" in page.url:
            a_large_one_is_read.set()
            assert small_ones_are_done.wait(60)
        return read_page(page)

    async def deliver(event: Event) -> None:
        await crawled.deliver(event)
        if small.keys() <= crawled.pages.keys():
            small_ones_are_done.set()

    monkeypatch.setattr("crawlscope.crawler.visited.read_page", read)
    with LargeFirst({"/": html(links=[*large, *small]), **large, **small}) as site:
        await run_crawl(CrawlPlan("c", site.url, allow_private=True), deliver)
    assert crawled.failures == {}
    assert crawled.pages.keys() == {"/", *large, *small}


async def test_two_crawls_in_one_process_do_not_meet() -> None:
    def site_of(name: str) -> dict[str, Page]:
        pages = {f"/{name}/{number}": html(name, links=["/"]) for number in range(30)}
        return {"/": html(name, links=pages), **pages}

    with Website(site_of("a")) as a, Website(site_of("b")) as b:
        first, second, again = await asyncio.gather(
            crawl(a.url), crawl(b.url, crawl_id="crawl-2"), crawl(a.url, crawl_id="crawl-3")
        )
        assert (len(a.requests), len(b.requests)) == (62, 31)
    assert [len(crawled.pages) for crawled in (first, second, again)] == [31, 31, 31]
    assert {event["id"] for event in second.events} == {"crawl-2"}


async def test_a_stopped_crawl_ends_as_cancelled() -> None:
    progress = CrawlProgress()

    def watch(now: CrawlProgress) -> None:
        progress.fetched = now.fetched

    async def enough() -> bool:
        return progress.fetched >= 5

    def endless(path: str) -> Page:
        return Page(f'{path} <a href=".{path}/a">a</a> <a href=".{path}/b">b</a>', delay_seconds=0.02)

    with Website(answer=endless) as site:
        crawled = await asyncio.wait_for(
            crawl(site.url, on_progress=watch, should_stop=enough, concurrency=4), 60
        )
        assert len(crawled.pages) == len(site.requests), "pages in progress are delivered"
    assert crawled.types[-1] == "crawl.cancelled"
    assert crawled.summary is not None
    assert crawled.summary.status == "cancelled"


async def test_cancelling_the_task_ends_the_crawl_at_once() -> None:
    crawled = Crawled()
    pages = {"/": html(links=["/slow"]), "/slow": Page(delay_seconds=60)}
    with Website(pages) as site:
        running = asyncio.create_task(
            run_crawl(CrawlPlan("c", site.url, allow_private=True), crawled.deliver)
        )
        await asyncio.to_thread(site.wait_until_asked_for, "/slow")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 30)
    assert crawled.types == ["crawl.started", "crawl.page"]


async def test_a_page_that_the_crawler_cannot_read_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def converts_all_but_one(markup: str, options: ConversionOptions) -> ConversionResult:
        if "odd" in markup:
            raise RuntimeError("the library\nhas a bug")
        return html_to_markdown.convert(markup, options)

    monkeypatch.setattr(markdown, "convert", converts_all_but_one)
    with Website({"/": html(links=["/o", "/b"]), "/o": html("odd"), "/b": html()}) as site:
        crawled = await crawl(site.url)
        assert site.requests.count("/o") == 1
    assert crawled.failures == {"/o": "the crawler could not read it: RuntimeError: the library has a bug"}
    assert crawled.types[-1] == "crawl.completed"


async def test_a_page_that_the_service_has_no_room_for_fails_alone() -> None:
    crawled = Crawled()

    async def deliver(event: Event) -> None:
        if len(str(event)) > 10_000:
            raise DeliveryTooLarge("larger than 10000")
        await crawled.deliver(event)

    pages = {"/": html(links=["/big", "/b"]), "/big": html("x" * 10_000, links=["/from-big"])}
    with Website({**pages, "/b": html(), "/from-big": html()}) as site:
        await run_crawl(CrawlPlan("c", site.url, allow_private=True), deliver)
        assert site.requests.count("/big") == 1
    assert crawled.failures == {"/big": "larger than 10000"}
    assert set(crawled.pages) == {"/", "/big", "/b", "/from-big"}
    assert crawled.types[-1] == "crawl.completed"


async def test_a_service_that_has_room_for_nothing_ends_the_crawl() -> None:
    async def deliver(event: Event) -> None:
        if event["type"] == "crawl.page":
            raise DeliveryTooLarge("larger than nothing")

    with Website({"/": html()}) as site, pytest.raises(DeliveryTooLarge):
        await asyncio.wait_for(run_crawl(CrawlPlan("c", site.url, allow_private=True), deliver), 60)


async def test_a_delivery_that_must_not_go_on_ends_the_crawl() -> None:
    class Refused(Exception):
        pass

    delivered: list[Event] = []

    async def refuse_third(event: Event) -> None:
        if len(delivered) == 2:
            raise Refused
        delivered.append(event)

    pages = {f"/{number}": html() for number in range(20)}
    pages["/slow"] = Page(delay_seconds=60)
    with Website({"/": html(links=["/slow", *pages]), **pages}) as site, pytest.raises(Refused):
        await asyncio.wait_for(run_crawl(CrawlPlan("c", site.url, allow_private=True), refuse_third), 30)
    assert len(delivered) == 2


async def test_a_crawl_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    before = signal.getsignal(signal.SIGINT)
    handled: list[int] = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, handled.append, 1)
    tasks = asyncio.all_tasks()
    try:
        with Website(
            {"/": html(links=["/gone", "/busy"]), "/gone": Page(reset=True), "/busy": Page(status=429)}
        ) as site:
            await crawl(site.url)
        os.kill(os.getpid(), signal.SIGINT)
        await eventually(lambda: bool(handled))
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
    assert handled == [1], "the handler of the service is still in place"
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # nothing to wait for
    assert asyncio.all_tasks() == tasks
    assert [
        record.name for record in caplog.records if record.name.split(".")[0] in ("crawlee", "httpx2")
    ] == []


async def test_listed_urls_are_fetched_and_no_link_is_followed() -> None:
    with (
        Website({"/": html(links=["/a", "/b"]), "/a": html("a", links=["/"])}, robots="") as site,
        Website({"/x": html("x", links=["/y"])}, robots="User-agent: *\nDisallow: /no") as other,
    ):
        urls = [
            f"{site.url}/a",
            f"{other.url}/x",
            f"{site.url}/gone",
            f"{other.url}/no",
            f"{site.url}/a#part",
        ]
        crawled = await crawl(urls[0], urls=urls)
        assert sorted(site.requests) == ["/a", "/gone"]
        assert other.requests == ["/x"]

    assert crawled.summary is not None
    assert (crawled.summary.status, crawled.summary.found, crawled.summary.fetched) == ("completed", 4, 3)
    assert set(crawled.failures) == {"/no"}
    assert crawled.metadata("/gone")["statusCode"] == 404


async def test_a_crawl_of_listed_urls_none_of_which_answers_has_failed() -> None:
    gone = f"http://127.0.0.1:{free_port()}/a"
    crawled = await crawl(gone, urls=[gone])
    assert crawled.types == ["crawl.started", "crawl.page", "crawl.failed"]
    assert f"none of 1 pages could be fetched, the first: {gone}: " in crawled.events[-1]["error"]


async def test_a_listed_url_that_redirects_elsewhere_does_not_move_the_others() -> None:
    with Website({"/": html("moved here")}) as other, Website({"/b": html("b")}) as site:
        site.pages["/a"] = redirect(f"{other.url}/")
        crawled = await crawl(f"{site.url}/a", urls=[f"{site.url}/a", f"{site.url}/b"])
    assert crawled.metadata("/a")["url"] == f"{other.url}/"
    assert set(crawled.pages) == {"/a", "/b"}


async def test_a_server_that_insists_on_a_session_id_in_the_address_gets_it() -> None:
    """It redirects to an address with the id; what is found under it is recorded without."""
    pages = {
        "/": html(links=["/shop"]),
        "/shop": redirect("/shop;jsessionid=0A1B?utm_source=self"),
        "/shop;jsessionid=0A1B?utm_source=self": html("Lanterns", links=["lamps;jsessionid=0A1B"]),
        "/lamps": html("Lamps"),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        assert crawled.metadata("/shop")["url"] == site.url + "/shop"
    assert set(crawled.pages) == {"/", "/shop", "/lamps"}
    assert "Lanterns" in crawled.document("/shop")["markdown"]


async def test_a_start_that_gains_a_www_keeps_links_to_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def everything_is_here(host: str, port: int, **options: Any) -> Any:
        return await resolve("127.0.0.1", port, **options)

    class Zoo(Website):
        def page_for(self, path: str) -> Page:
            asked = self.headers[-1]["host"] if path == "/" else "www."
            return super().page_for(path) if asked.startswith("www.") else redirect(f"http://www.{asked}/")

    monkeypatch.setattr(loop, "getaddrinfo", everything_is_here)
    with Zoo({"/a": html(), "/b": html()}, robots="") as site:
        name = f"zoo.example:{site.port}"
        site.pages["/"] = html(links=[f"http://{name}/a", f"http://www.{name}/b"])
        crawled = await crawl(f"http://{name}/")
        assert site.requests.count("/a") == 1, "asked for under the new name"
    assert set(crawled.pages) == {"/", "/a", "/b"}
