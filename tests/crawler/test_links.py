import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.crawler.links import names_a_page, normalise, site_of


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.ORG", "http://example.org/"),
        ("http://example.org:80/a#b", "http://example.org/a"),
        ("https://example.org:443", "https://example.org/"),
        ("https://example.org:80/", "https://example.org:80/"),
        ("http://example.org/a?z=1&a=2", "http://example.org/a?z=1&a=2"),
        ("http://example.org/a b/ü?q=ö", "http://example.org/a%20b/%C3%BC?q=%C3%B6"),
        ("http://example.org/%41%zz", "http://example.org/%41%zz"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://me:secret@example.org/", "http://example.org/"),
        ("http://example.org./", "http://example.org/"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("ftp://example.org/", None),
        ("http://", None),
        ("http://[", None),
        ("http://example.org:99999/", None),
        ("http://" + "a" * 70 + "ü.example/", None),
        ("http://example.org/" + "x" * 9000, None),
    ],
)
def test_one_spelling_for_one_page(url: str, expected: str | None) -> None:
    assert normalise(url) == expected


@given(st.text(max_size=60), st.sampled_from(["", "http://h/", "//", "http://", "?", "http://h:8/a?"]))
def test_no_address_raises_and_a_normal_one_stays(text: str, prefix: str) -> None:
    url = normalise(prefix + text, base="http://example.org/a/b")
    if url is not None:
        assert normalise(url) == url
        assert site_of(url)
        assert names_a_page(url) in (True, False)


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
