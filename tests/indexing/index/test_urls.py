import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.indexing.index.urls import (
    MAX_PREFIX_LENGTH,
    MAX_PREFIX_SEGMENTS,
    domain_of,
    host_of,
    url_prefixes,
)


def test_prefixes_end_at_path_segments() -> None:
    assert url_prefixes("https://h:8/a/b.html?next=/x/#/y/") == ["https://h:8/", "https://h:8/a/"]
    assert url_prefixes("https://h/a/") == ["https://h/", "https://h/a/"]
    assert url_prefixes("https://h") == ["https://h/"]
    assert url_prefixes("https://h?q=/a/") == ["https://h/"]


@given(st.text() | st.text("ab/:?#").map("https://h/".__add__))
def test_prefixes_are_few_short_and_growing(url: str) -> None:
    prefixes = url_prefixes(url)
    assert len(prefixes) <= MAX_PREFIX_SEGMENTS
    assert all(len(prefix) <= MAX_PREFIX_LENGTH for prefix in prefixes)
    assert prefixes == sorted(set(prefixes), key=len)
    assert all(prefix.endswith("/") and (url.startswith(prefix) or len(prefixes) == 1) for prefix in prefixes)


def test_the_prefixes_of_the_longest_urls_are_small() -> None:
    assert sum(map(len, url_prefixes("https://h/" + "a/" * 2_500))) < 1_000
    assert url_prefixes("https://h/" + "a" * 5_000) == ["https://h/"]


def test_domain_is_the_host_in_lower_case() -> None:
    assert domain_of("https://User@Docs.Example:8443/a") == "docs.example"
    assert domain_of("http://[::1]:80/") == "::1"
    assert domain_of("http://[broken/") == ""
    assert domain_of("unknown") == ""


@given(st.text())
def test_any_text_has_a_domain_or_none(url: str) -> None:
    assert isinstance(domain_of(url), str)


@pytest.mark.parametrize(
    "written",
    [
        "xn--mnchen-3ya.example",
        "münchen.example",
        "MÜNCHEN.example",
        "mu\u0308nchen.example",
        "münchen.example.",
        "münchen.example:8443",
        "https://user@münchen.example/path?query#fragment",
    ],
)
def test_all_spellings_of_a_host_are_equal(written: str) -> None:
    assert host_of(written) == "xn--mnchen-3ya.example"


@pytest.mark.parametrize("written", ["exa mple", "[::1", "under_score.example", "ß" * 300])
def test_text_that_is_no_host_filters_as_it_is(written: str) -> None:
    assert host_of(written)


def test_the_sharp_s_is_a_letter_of_its_own() -> None:
    assert domain_of("http://straße.example/") == "xn--strae-oqa.example"
