"""One page under several addresses is one document, and two pages stay two."""

import pytest

from crawlscope.crawler.pace import Clock
from tests.crawler.harness import Crawled, crawl
from tests.support.fakes.website import Page, Website, html, redirect

GUIDE = "<h1>Walrus guide</h1><p>Walrus feeding times are noon and dusk, at the northern pool.</p>"


def documents(crawled: Crawled, site: Website) -> dict[str, str]:
    """By path asked for: the path under which it is found."""
    return {path: crawled.metadata(path)["url"].removeprefix(site.url) for path in crawled.pages}


def canonical(url: str) -> str:
    return f'<link rel="canonical" href="{url}">'


VARIANTS = [
    *("/guide", "/guide/", "/guide/index.html", "/guide?ref=home", "/guide?", "/GUIDE", "/guide//"),
    *(
        "/guide?utm_source=news",
        "/guide?UTM_Source=feed&amp;gclid=x",
        "/guide;jsessionid=A1",
        "/guide#feeding",
    ),
]


@pytest.mark.parametrize("head", [canonical("/guide"), ""])
async def test_one_page_under_many_addresses_is_one_document(head: str) -> None:
    guide = html(GUIDE, title="Walrus guide", head=head)

    def answer(path: str) -> Page | None:
        return guide if path.lower().startswith("/guide") else None

    pages = {"/": html(links=[*VARIANTS, "/other"]), "/other": html("Another walrus note")}
    with Website(pages, answer=answer) as site:
        crawled = await crawl(site.url)
        found = documents(crawled, site)
        assert not any("utm" in path or "session" in path for path in site.requests)
    assert len({found[path] for path in found if path.lower().startswith("/guide")}) == 1
    assert len(set(found.values())) == 3
    if head:
        assert found["/guide?ref=home"] == "/guide"


async def test_the_canonical_page_is_fetched_and_its_text_counts() -> None:
    printed = html(f"<p>Print version</p>{GUIDE}", title="Walrus guide", head=canonical("/guide"))
    pages = {
        "/": html(links=["/print/guide", "/sorted/guide"]),
        "/print/guide": printed,
        "/sorted/guide": html(GUIDE, title="Walrus guide", headers={"Link": "<../guide>; rel=canonical"}),
        "/guide": html(GUIDE, title="Walrus guide"),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        assert documents(crawled, site) == {
            "/": "/",
            "/guide": "/guide",
            "/print/guide": "/guide",
            "/sorted/guide": "/guide",
        }
    assert "Print version" not in crawled.document("/print/guide")["markdown"]


async def test_a_canonical_address_is_not_believed_where_the_pages_differ() -> None:
    """All pages name the start page, and all pages of a list the first one: both are found in the wild."""
    pages = {
        "/": html("<p>Welcome to the zoo shop", head=canonical("/"), links=["/a", "/list?page=2"]),
        "/a": html("<p>Opening hours: nine to five, closed on Mondays", head=canonical("/")),
        "/list": html("<p>Otter, badger, marten, stoat", head=canonical("/list")),
        "/list?page=2": html("<p>Heron, stork, crane, egret", head=canonical("/list")),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        assert documents(crawled, site) == {path: path for path in pages}


@pytest.mark.parametrize(
    "target",
    [
        *("/missing", "/private", "http://elsewhere.example/guide", "http://[", "/guide.pdf", "mailto:a@b"),
        *("/reset", "/loop"),
    ],
)
async def test_a_canonical_page_that_nobody_can_read_costs_nothing(target: str) -> None:
    guide = html(GUIDE, head=canonical(target))
    pages = {"/": html(links=["/a", "/b"]), "/a": guide, "/b": guide, "/reset": Page(reset=True)}
    with Website({**pages, "/loop": redirect("/loop")}, robots="User-agent: *\nDisallow: /private") as site:
        crawled = await crawl(site.url)
        found = documents_of_successes(crawled, site)
    assert {"/a", "/b"} <= set(crawled.pages)
    assert found["/a"] in ("/a", "/b")
    assert "Walrus" in crawled.document("/a")["markdown"]
    assert "Walrus" in crawled.document("/b")["markdown"]


def documents_of_successes(crawled: Crawled, site: Website) -> dict[str, str]:
    succeeded = [path for path in crawled.pages if path not in crawled.failures]
    return {path: crawled.metadata(path)["url"].removeprefix(site.url) for path in succeeded}


async def test_pages_that_name_each_other_are_one_document() -> None:
    pages = {
        "/": html(links=["/a", "/b", "/c"]),
        "/a": html(GUIDE, head=canonical("/b")),
        "/b": html(GUIDE, head=canonical("/c")),
        "/c": html(GUIDE, head=canonical("/a")),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        found = documents(crawled, site)
    assert len({found["/a"], found["/b"], found["/c"]}) == 1


async def test_a_canonical_page_that_redirects_back_is_the_page_itself() -> None:
    guide = html(GUIDE, head=canonical("/guide"))
    with Website({"/": html(links=["/guide/"]), "/guide/": guide, "/guide": redirect("/guide/")}) as site:
        crawled = await crawl(site.url)
        assert documents(crawled, site) == {"/": "/", "/guide/": "/guide/", "/guide": "/guide/"}


async def test_pages_with_the_same_text_at_different_places_stay_apart() -> None:
    pages = {path: html("<p>Coming soon", title="Shop") for path in ("/lamps", "/chairs", "/en/lamps")}
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url)
        assert documents(crawled, site) == {path: path for path in ["/", *pages]}


async def test_at_the_limit_no_page_waits_for_its_canonical_one() -> None:
    guide = html(GUIDE, head=canonical("/guide"))
    with Website({"/": html(links=["/a", "/b"]), "/a": guide, "/b": guide, "/guide": guide}) as site:
        crawled = await crawl(site.url, limit=3)
        found = documents(crawled, site)
    assert set(found) == {"/", "/a", "/b"}
    assert found["/a"] == found["/b"]


async def test_pages_that_wait_when_the_crawl_is_cancelled_are_delivered() -> None:
    pages = {
        "/": html(links=["/a"]),
        "/a": html(GUIDE, head=canonical("/guide")),
        "/guide": Page(status=429, headers={"Retry-After": "200"}),
    }
    with Website(pages) as site:

        async def when_it_waits() -> bool:
            return "/guide" in site.requests

        crawled = await crawl(site.url, should_stop=when_it_waits, clock=Clock())
    assert set(crawled.pages) == {"/", "/a"}
    assert crawled.types[-1] == "crawl.cancelled"


async def test_the_shortest_address_is_the_documents_whichever_page_is_read_first() -> None:
    pages = {
        "/": html(links=["/guide/index.html", "/guide?ref=home", "/guide/"]),
        "/guide/index.html": html(GUIDE),
        "/guide?ref=home": html(GUIDE),
        "/guide/": Page(html(GUIDE).body, delay_seconds=0.2),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        found = documents(crawled, site)
    assert {path: url for path, url in found.items() if path != "/"} == dict.fromkeys(
        set(pages) - {"/"}, "/guide/"
    )


async def test_a_shorter_address_that_shows_something_else_or_nothing_costs_nothing() -> None:
    pages = {
        "/": html(links=["/a/index.html", "/a/", "/b/index.html", "/b/", "/c/?x=1", "/c/"]),
        "/a/index.html": html(GUIDE),
        "/a/": html("<p>A list of files"),
        "/b/index.html": html("<p>Otters", title="Otters"),
        "/b/": Page(reset=True),
        "/c/?x=1": html("<p>Newts", title="Newts"),
        "/c/": Page(status=404),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
        found = documents_of_successes(crawled, site)
    assert set(crawled.failures) == {"/b/"}
    assert found == {path: path for path in pages if path != "/b/"}
