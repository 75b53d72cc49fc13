import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.crawler.links import (
    like,
    moved_to,
    names_a_page,
    normalise,
    repeats_itself,
    site_of,
    variant_key,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.ORG", "http://example.org/"),
        (" http://example.org/a\n", "http://example.org/a"),
        ("ht\ntp://example.org/a\tb", "http://example.org/ab"),
        ("http:\\\\example.org\\a\\b", "http://example.org/a/b"),
        ("http://example.org:80/a#b", "http://example.org/a"),
        ("https://example.org:443", "https://example.org/"),
        ("https://example.org:80/", "https://example.org:80/"),
        ("http://example.org/a?", "http://example.org/a"),
        ("http://example.org/a/./b/../c", "http://example.org/a/c"),
        ("http://example.org/a/%2E%2e/c", "http://example.org/c"),
        ("http://example.org/a?z=1&a=2", "http://example.org/a?z=1&a=2"),
        ("http://example.org/a b/ü?q=ö", "http://example.org/a%20b/%C3%BC?q=%C3%B6"),
        ("http://example.org/%c3%bc/%7eme/%2f", "http://example.org/%C3%BC/~me/%2F"),
        ("http://example.org/%41%zz", "http://example.org/%41%zz"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://straße.example/", "http://xn--strae-oqa.example/"),
        ("http://STRASSE.example/", "http://strasse.example/"),
        ("http://βόλος.example/", "http://xn--nxasmm1c.example/"),
        ("http://نامه\u200cای.example/", "http://xn--mgba3gch31f060k.example/"),
        ("http://ｅｘａｍｐｌｅ。org/", "http://example.org/"),
        ("http://i❤.example/", "http://xn--i-7iq.example/"),
        ("http://xn--strae-oqa.example/", "http://xn--strae-oqa.example/"),
        ("http://me:secret@example.org/", "http://example.org/"),
        ("http://example.org./", "http://example.org/"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://[2001:DB8:0:0::1]/", "http://[2001:db8::1]/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://example.org/;jsessionid=0A1B?x=1", "http://example.org/?x=1"),
        ("http://example.org/(S(lit3py55t21z5v55vlm25s55))/a.aspx", "http://example.org/a.aspx"),
        ("http://example.org/?PHPSESSID=0123456789abcdef0123&b=1", "http://example.org/?b=1"),
        ("http://example.org/?PHPSESSID=abc&CFID=12&CFTOKEN=345", "http://example.org/"),
        ("http://example.org/?sid=12&section_id=3", "http://example.org/?sid=12&section_id=3"),
        ("http://example.org/?utm_source=a&UTM_Medium=b&gclid=c&x=%26", "http://example.org/?x=%26"),
        ("http://example.org/?fbclid=1&&", "http://example.org/"),
        ("ftp://example.org/", None),
        ("javascript:void(0)", None),
        ("//example.org/", None),
        ("http://", None),
        ("http://[", None),
        ("http://a b/", None),
        ("http://example.org:99999/", None),
        ("http://example.org:0/", None),
        ("http://" + "a" * 70 + "ü.example/", None),
        ("http://" + "a" * 64 + ".example/", None),
        ("http://example.org/" + "x" * 9000, None),
        ("http://example.org/\ud800", None),
    ],
)
def test_one_spelling_for_one_page(url: str, expected: str | None) -> None:
    assert normalise(url) == expected


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("//other.example/x", "http://other.example/x"),
        ("\\\\other.example\\x", "http://other.example/x"),
        ("?b=2", "http://example.org/a/b?b=2"),
        ("", "http://example.org/a/b?q=1"),
        ("../../../up", "http://example.org/up"),
        ("https:/x", "https://x/"),
        ("http:x", "http://example.org/a/x"),
        ("mailto:a@b.example", None),
    ],
)
def test_links_start_from_where_they_are(link: str, expected: str | None) -> None:
    assert normalise(link, base="http://example.org/a/b?q=1") == expected


@given(st.text(max_size=60), st.sampled_from(["", "http://h/", "//", "http://", "?", "http://h:8/a?"]))
def test_no_address_raises_and_a_normal_one_stays(text: str, prefix: str) -> None:
    url = normalise(prefix + text, base="http://example.org/a/b")
    if url is not None:
        assert normalise(url) == url
        assert site_of(url)
        assert names_a_page(url) in (True, False)


def test_a_path_that_repeats_itself() -> None:
    assert repeats_itself("http://h/a/b/a/b/a/b/a/b/a/b/")
    assert repeats_itself("http://h/x/y/y/y/y/y")
    assert repeats_itself("http://h/?f=1&f=1&f=1&f=1&f=1")
    assert not repeats_itself("http://h/a/b/a/b/a/b/a/b/")
    assert not repeats_itself("http://h/2020/2020/2021/2021/?f=1&f=2&f=3&f=4&f=5&f=6")


def test_addresses_that_often_show_one_page() -> None:
    same = [
        "http://h/a",
        "https://www.h/a/",
        "http://h/A/index.html",
        "http://h//a?x=1",
        "http://h/a/Default.aspx",
    ]
    assert len({variant_key(url) for url in same}) == 1
    assert variant_key("http://h/a") != variant_key("http://h/b")
    assert variant_key("http://h/index.html") == variant_key("http://h/")
    assert variant_key("http://h/a/index-2.html") != variant_key("http://h/a/")


def test_the_site_is_host_and_port_whatever_the_scheme() -> None:
    assert site_of("http://example.org/a") == site_of("https://example.org/b")
    assert site_of("http://example.org:8080/") != site_of("http://example.org/")
    assert site_of("http://docs.example.org/") != site_of("http://example.org/")


def test_names_that_leave_no_hope_for_text() -> None:
    assert not names_a_page("http://h/logo.PNG?v=1")
    assert not names_a_page("http://h/a.tar.gz")
    assert names_a_page("http://h/a.tar.gz.html")
    assert names_a_page("http://h/release-3.11")
    assert names_a_page("http://h/feed.xml?file=x.png")


def test_an_address_elsewhere() -> None:
    assert moved_to("http://h/a/b?c=d", "https://www.h:8443/x") == "https://www.h:8443/a/b?c=d"
    assert like("http://h/a", "https://h/b") == "https://h/a"
    assert like("http://h/a", "https://other/b") == "http://h/a"
    assert like("http://h:8080/a", "https://h:8080/b") == "http://h:8080/a"
