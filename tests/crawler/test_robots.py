import pytest

from crawlscope.crawler.fetch import FetchedPage, FetchFailed
from crawlscope.crawler.robots import RobotsRules
from tests.crawler.harness import crawl
from tests.support.fakes.website import Page, Website, html, redirect

URL = "http://h/robots.txt"


def rules(text: str | bytes, status: int = 200, content_type: str = "text/plain") -> RobotsRules:
    body = text.encode() if isinstance(text, str) else text
    return RobotsRules.read(URL, FetchedPage(URL, status, content_type, body))


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbfUser-agent: *\nDisallow: /private",
        "\ufeffUser-agent: *\r\nDisallow: /private\r\n".encode("utf-16-le"),
        b"USER-AGENT:*\rDISALLOW:/private\r",
        b"\n\n# caf\xe9\nUser-agent: CrawlScope # it\nDisallow: /private # this",
        b"User-agent: other\nUser-agent: crawlscope\nDisallow: /private\n\nUser-agent: *\nDisallow: /open",
    ],
)
def test_rules_in_any_spelling(body: bytes) -> None:
    found = rules(body)
    assert not found.allows("http://h/private/page")
    assert found.allows("http://h/open")
    assert found.refusal == f"blocked by {URL}"


def test_the_longest_rule_wins_and_patterns_count() -> None:
    found = rules("User-agent: *\nDisallow: /a\nAllow: /a/open\nDisallow: /*.cgi$\nDisallow: /caf\u00e9")
    assert not found.allows("http://h/a/page")
    assert found.allows("http://h/a/open/page")
    assert not found.allows("http://h/x.cgi")
    assert found.allows("http://h/x.cgi?y=1")
    assert not found.allows("http://h/caf%C3%A9")


@pytest.mark.parametrize("status", [204, 301, 304, 400, 401, 403, 404, 410, 451])
def test_a_robots_txt_that_is_not_there_allows_everything(status: int) -> None:
    assert rules("User-agent: *\nDisallow: /" if status >= 300 else "", status).allows("http://h/")


@pytest.mark.parametrize("status", [429, 500, 503, 522])
def test_one_that_the_server_fails_to_give_allows_nothing(status: int) -> None:
    found = rules("", status)
    assert not found.allows("http://h/")
    assert f"answered {status}" in found.refusal


def test_why_it_could_not_be_read_is_said() -> None:
    assert "cannot be read (too long)" in RobotsRules.read(URL, FetchFailed("too long")).refusal
    assert RobotsRules.read(URL, FetchFailed("refused", unreachable=True)).refusal == "refused"


def test_a_page_of_html_is_no_robots_txt() -> None:
    page = "<!DOCTYPE html>\n<pre>\nUser-agent: *\nDisallow: /\n</pre>"
    assert rules(page, content_type="text/html").allows("http://h/a")


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("Crawl-delay: 2.5", 2.5),
        ("Crawl-delay: 86400", 30),
        ("Crawl-delay: soon", 0),
        ("Crawl-delay: -3", 0),
        ("Crawl-delay: nan", 0),
        ("Crawl-delay: inf", 0),
        ("Request-rate: 1/5", 5),
        ("Request-rate: 0/5", 0),
        ("Request-rate: 10/1s", 0.1),
        (f"Request-rate: 1/{'9' * 400}", 30),
        (f"Request-rate: {'9' * 400}/{'9' * 402}", 30),
    ],
)
def test_the_pace_that_it_asks_for(line: str, seconds: float) -> None:
    assert rules(f"User-agent: *\n{line}\nDisallow:").delay_seconds == seconds


async def test_a_robots_txt_may_be_at_another_host() -> None:
    with Website({"/": html()}, robots="User-agent: *\nDisallow: /a") as other:
        moved = redirect(other.url + "/robots.txt", status=301)
        with Website({"/": html(links=["/a", "/b"]), "/a": html(), "/b": html()}, robots=moved) as site:
            crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/b"}


async def test_a_robots_txt_that_leads_nowhere_forbids_everything() -> None:
    lost = Page(status=302, headers={"Location": "ftp://h/robots.txt"})
    with Website({"/": html()}, robots=lost) as site:
        crawled = await crawl(site.url)
    assert "cannot be read (answered 302 to 'ftp://h/robots.txt'" in crawled.failures["/"]
