import gzip

import pytest

from tests.crawler.harness import crawl
from tests.support.fakes.website import Page, Website, html

XHTML = (
    '<?xml version="1.0" encoding="{charset}"?>\n<!-- a comment -->\n<!DOCTYPE html PUBLIC'
    ' "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">\n'
    '<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head><script src="x.js"/>'
    "<title>Heron</title></head>"
    '<body><h1><a id="top"/>Heron</h1><p>It stands, sag\u00e9.</p><p><a href="/deep">deep</a></p></body>'
    "</html>"
)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/xhtml+xml",
        "application/xml",
        "text/xml; charset=utf-8",
        "Application/XHTML+XML;charset=UTF-8",
        None,
    ],
)
async def test_xhtml_is_a_page_whatever_it_is_called(content_type: str | None) -> None:
    page = Page(XHTML.format(charset="utf-8"), content_type=content_type)
    with Website({"/": page, "/deep": html()}) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == {"/", "/deep"}
    assert crawled.metadata("/")["title"] == "Heron"
    assert crawled.document("/")["markdown"] == f"# Heron\n\nIt stands, sag\u00e9.\n\n[deep]({site.url}/deep)"


async def test_xhtml_says_its_own_charset() -> None:
    body = XHTML.format(charset="iso-8859-1").encode("latin-1")
    with Website({"/": Page(body, content_type="application/xml")}) as site:
        crawled = await crawl(site.url)
    assert "sag\u00e9" in crawled.document("/")["markdown"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html, charset=utf-8",
        "text/html charset=utf-8",
        'TEXT/HTML;CHARSET="utf-8"',
        "text/html; charset=utf-8, text/html",
        "text/html;;charset=utf-8;",
        " text/html",
        "html",
        "text",
        "*/*",
        "unknown",
        "",
    ],
)
async def test_odd_content_types_are_read_as_browsers_do(content_type: str) -> None:
    page = Page("<html><body><p>The k\u00eengfisher dives.</p><a href=/deep>x</a>", content_type=content_type)
    with Website({"/": page, "/deep": html()}) as site:
        crawled = await crawl(site.url)
    assert crawled.document("/")["markdown"].startswith("The k\u00eengfisher dives.")
    assert set(crawled.pages) == {"/", "/deep"}


@pytest.mark.parametrize(
    ("body", "markdown"),
    [
        ("  <!-- made by hand --><p>Text", "Text"),
        ("<!doctype HTML><p>Text", "Text"),
        ("just < text", "just < text"),
        ("<made-up>tag", "<made-up>tag"),
        (b"\x7fELF\x02\x01", ""),
        ("\ufeff<p>Wide".encode("utf-16-le"), "Wide"),
    ],
)
async def test_without_a_content_type_the_first_bytes_decide(body: bytes | str, markdown: str) -> None:
    with Website({"/": Page(body, content_type=None)}) as site:
        crawled = await crawl(site.url)
    assert crawled.document("/")["markdown"] == markdown


async def test_a_feed_is_its_text_and_leads_to_its_entries() -> None:
    rss = (
        "<?xml version='1.0'?><rss version='2.0'><channel><title>News &amp; more</title><link>/</link>"
        "<item><title>Otters</title><link>/otters?utm_source=rss</link>"
        "<description><![CDATA[<p>They <b>swim</b>.</p>]]></description></item></channel></rss>"
    )
    atom = (
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>Log</title><entry><title>Newts</title>'
        '<link rel="edit" href="/edit"/><link href="newts"/></entry></feed>'
    )
    pages = {
        "/": html(links=["/rss.xml", "/atom.xml"]),
        "/rss.xml": Page(rss, content_type="application/rss+xml"),
        "/atom.xml": Page(atom, content_type="application/atom+xml"),
        "/otters": html("Otters"),
        "/newts": html("Newts"),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
    assert set(crawled.pages) == set(pages)
    assert crawled.document("/rss.xml")["markdown"].splitlines()[0] == "News & more"
    assert "They **swim**." in crawled.document("/rss.xml")["markdown"]
    assert crawled.metadata("/atom.xml")["title"] == "Log"


async def test_other_xml_is_its_text() -> None:
    pages = {
        "/": html(links=["/doc", "/broken", "/bomb", "/drawing"]),
        "/doc": Page(
            "<book><title>On bees</title><para>They <em>hum</em>.</para></book>", content_type="text/xml"
        ),
        "/broken": Page("<a><b>half of it & more", content_type="application/xml"),
        "/bomb": Page(
            '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY f SYSTEM "file:///etc/passwd">]><a>safe &b; &f;</a>',
            content_type="application/xml",
        ),
        "/drawing": Page("<svg><text>words</text></svg>", content_type="image/svg+xml"),
    }
    with Website(pages) as site:
        crawled = await crawl(site.url)
    assert crawled.document("/doc")["markdown"] == "On bees\nThey\nhum\n."
    assert crawled.document("/broken")["markdown"].startswith("half of it")
    assert "root:" not in crawled.document("/bomb")["markdown"]
    assert crawled.document("/drawing")["markdown"] == ""


async def test_packed_bodies() -> None:
    packed = gzip.compress(b"<html><body><p>The plover runs.")
    pages = {
        "/announced": Page(packed, headers={"Content-Encoding": "gzip"}),
        "/old-name": Page(packed, headers={"Content-Encoding": "x-gzip"}),
        "/unannounced": Page(packed),
        "/charset": Page("<p>The plover runs.", headers={"Content-Encoding": "utf-8"}),
        "/brotli": Page(b"\x0b\x02\x80", headers={"Content-Encoding": "br"}),
        "/bomb": Page(gzip.compress(b"x" * (21 * 1024**2))),
    }
    with Website({"/": html(links=pages), **pages}) as site:
        crawled = await crawl(site.url)
    for path in ("/announced", "/old-name", "/unannounced", "/charset"):
        assert crawled.document(path)["markdown"] == "The plover runs.", path
    assert crawled.failures["/brotli"] == "the body is compressed with br, which was not requested"
    assert "too large" in crawled.failures["/bomb"]


async def test_what_ends_at_once_in_xml_does_not_swallow_the_page() -> None:
    body = (
        "<h:html xmlns:h='http://www.w3.org/1999/xhtml'><h:head><h:title/></h:head><h:body>"
        "<h:a id='a > b'/><h:textarea/><h:img src='/x.png' alt='x'/><h:p>Kept <h:b>whole</h:b><h:br/>"
        "<![CDATA[5 < 6]]></h:p></h:body></h:html>"
    )
    with Website({"/": Page(body, content_type="application/xml")}) as site:
        crawled = await crawl(site.url)
    assert "Kept **whole**" in crawled.document("/")["markdown"]
    assert "5 < 6" in crawled.document("/")["markdown"].replace("\\", "")
