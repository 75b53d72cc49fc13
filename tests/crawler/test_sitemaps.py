import gzip

import pytest

from crawlscope.crawler import sitemaps
from crawlscope.crawler.reading.xml_pages import Listing, listing_of
from tests.crawler.harness import crawl
from tests.support.fakes.website import Page, Website, html, redirect

NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
SHELL = Page('<html><head><title>App</title></head><body><div id="root">Loading</div></body></html>')


def urlset(*urls: str) -> str:
    return f"<urlset {NAMESPACE}>" + "".join(f"<url><loc>{url}</loc></url>" for url in urls) + "</urlset>"


def index(*urls: str) -> str:
    entries = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls)
    return f'<?xml version="1.0"?><sitemapindex {NAMESPACE}>{entries}</sitemapindex>'


def named(*urls: str) -> str:
    return "User-agent: *\nDisallow: /private\n" + "".join(f"Sitemap: {url}\n" for url in urls)


async def test_pages_that_only_the_sitemap_of_robots_txt_names_are_crawled() -> None:
    with Website({"/": SHELL, "/docs/a.html": html("Capybara")}) as site:
        site.pages["/robots.txt"] = Page(named(site.url + "/map.xml"))
        site.pages["/map.xml"] = Page(urlset(site.url + "/docs/a.html"), content_type="application/xml")
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/docs/a.html"}
    assert crawled.types[-1] == "crawl.completed"


async def test_without_a_name_in_robots_txt_the_usual_place_is_read() -> None:
    pages = {"/": SHELL, "/a": html(links=["/b"]), "/b": html(), "/sitemap.xml": Page(urlset("/a"))}
    with Website(pages) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/a", "/b"}, "their links are followed too"


async def test_all_kinds_of_sitemaps() -> None:
    odd = (
        f'\n<?xml version="1.0" encoding="utf-8"?>\n<urlset {NAMESPACE}'
        ' xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"><url><loc>\n /odd?a=1&amp;b=2 </loc>'
        "<image:image><image:loc>/picture</image:loc></image:image></url><url><loc>/more?x=1&y=2</loc></url>"
    )
    rss = "<rss><channel><link>/channel</link><item><link>/item</link></item></channel></rss>"
    atom = '<feed xmlns="http://www.w3.org/2005/Atom"><entry><link href="/entry"/></entry></feed>'
    listings = {
        "/index.xml": Page(index("/deeper.xml", "/index.xml", "/gone.xml")),
        "/deeper.xml": Page(index("/packed.xml.gz")),
        "/packed.xml.gz": Page(gzip.compress(urlset("/packed").encode()), content_type="application/gzip"),
        "/list.txt": Page("\ufeff/relative\r\nhttp://elsewhere.example/\r\n", content_type="text/plain"),
        "/wide.xml": Page(urlset("/wide").encode("utf-16"), content_type="application/xml"),
        "/odd.xml": Page(odd),
        "/feed.xml": Page(rss),
        "/atom.xml": Page(atom),
        "/moved.xml": redirect("/new-place.xml"),
        "/new-place.xml": Page(urlset("/moved", "/private/page", "/logo.png")),
        "/html.xml": html("no sitemap", links=["/from-html"]),
    }
    expected = {"/packed", "/wide", "/odd?a=1&b=2", "/more?x=1&y=2", "/item", "/entry", "/moved", "/text"}
    pages = {path: html(path) for path in expected}
    with Website({"/": SHELL, **pages, **listings}) as site:
        site.pages["/list.txt"] = Page(
            f"\ufeff{site.url}/text\r\nno address\r\nhttp://elsewhere.example/\r\n"
        )
        first = [path for path in listings if path not in ("/deeper.xml", "/packed.xml.gz", "/new-place.xml")]
        site.pages["/robots.txt"] = Page(named(*(site.url + path for path in first)))
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", *expected}
    assert crawled.summary is not None
    assert crawled.summary.robots_blocked == 1


async def test_links_come_before_sitemaps_and_the_limit_holds_for_both() -> None:
    listed = [f"/listed/{number}" for number in range(50)]
    linked = [f"/linked/{number}" for number in range(5)]
    pages = {path: html(path) for path in [*listed, *linked]}
    with Website({"/": html(links=linked), "/sitemap.xml": Page(urlset(*listed)), **pages}) as site:
        crawled = await crawl(site.url, limit=8)
    assert len(crawled.pages) == 8
    assert set(linked) < set(crawled.pages)


async def test_no_sitemap_is_asked_for_where_it_has_no_room() -> None:
    with Website({"/": html(), "/sitemap.xml": Page(urlset("/a"))}) as site:
        await crawl(site.url, limit=1)
        assert site.requests == ["/"]


@pytest.mark.parametrize("start", [Page("gone", status=404), Page(reset=True)])
async def test_a_start_that_is_not_there_opens_no_sitemap(start: Page) -> None:
    with Website({"/": html(), "/start": start, "/sitemap.xml": Page(urlset("/"))}) as site:
        crawled = await crawl(site.url + "/start")
    assert set(crawled.pages) == {"/start"}


async def test_an_endless_index_of_sitemaps_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemaps, "MAX_SITEMAPS", 20)

    def endless(path: str) -> Page | None:
        return Page(index(path + "a", path + "b")) if path.startswith("/maps/") else None

    with Website({"/": SHELL}, robots="Sitemap: /maps/x", answer=endless) as site:
        crawled = await crawl(site.url)
        assert len(site.requests) == 1 + 20
    assert set(crawled.pages) == {"/"}


async def test_a_sitemap_of_another_host_is_read_where_that_host_allows_it() -> None:
    with Website({"/a.xml": Page("")}) as other, Website({"/": SHELL, "/a": html()}) as site:
        site.pages["/robots.txt"] = Page(named(other.url + "/a.xml"))
        other.pages["/a.xml"] = Page(urlset(site.url + "/a", other.url + "/b"))
        crawled = await crawl(site.url)
        assert other.requests == ["/a.xml"]
    assert set(crawled.pages) == {"/", "/a"}


@pytest.mark.parametrize(
    ("sitemap", "pages"),
    [
        ("<urlset><url><loc><![CDATA[/a?x=1&y=2]]></loc></url></urlset>", ["/a?x=1&y=2"]),
        ("<urlset><url><loc>/a?x=1&y=2&amp;z=3</loc></url></urlset>", ["/a?x=1&y=2&z=3"]),
        ("<urlset><url><loc>/caf&eacute;</loc></url></urlset>", ["/caf%C3%A9"]),
        ("<URLSET><URL><LOC>/a</LOC></URL></URLSET>", ["/a"]),
        ("<urlset><url><loc>/a</loc><xhtml:link href='/b'/></url></urlset>", ["/a"]),
        ("<sm:urlset><sm:url><sm:loc>/a</sm:loc></sm:url></sm:urlset>", ["/a"]),
        ("<sitemapindex><url><loc>/a</loc></url></sitemapindex>", ["/a"]),
    ],
)
def test_faulty_sitemaps_are_read_as_they_are_meant(sitemap: str, pages: list[str]) -> None:
    listing = listing_of(sitemap, "http://example.org/sitemap.xml")
    assert listing == Listing(pages=[f"http://example.org{page}" for page in pages])
