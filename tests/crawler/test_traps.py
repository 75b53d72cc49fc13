"""Endless sites end by themselves, and large ones are crawled whole."""

from collections.abc import Callable

import pytest

from tests.crawler.harness import crawl
from tests.support.fakes.website import Page, Website, html

SHOP = html('<p>We sell lanterns.</p><a href="catalog/lamps/">Lamps</a>', title="Shop")


def calendar(path: str) -> Page:
    month = int(path.partition("month=")[2] or 0)
    return html(
        f'<p>No events. <a href="/">Home</a> <a href="/calendar?month={month + 1}">Next</a>'
        f' <a href="/calendar?month={month - 1}">Previous</a>'
    )


def growing_query(path: str) -> Page:
    return html(f'<p>Choose <a href="{path}{"&amp;" if "?" in path else "?"}f{len(path)}=1">a filter</a>')


def two_by_turns(path: str) -> Page:
    to, text = ("a/", "Alpha") if path.endswith("b/") else ("b/", "Beta")
    return html(f"<p>{text}", links=[to])


def breadcrumbs(path: str) -> Page:
    return html(f"<p>You are at {path}", links=["deeper/"])


def not_found(path: str) -> Page:
    return Page('<p>Not found. <a href="help/us/">Help</a>', status=404)


def branching(path: str) -> Page:
    return html("".join(f'<p>All the <a href="{path.rstrip("/")}/{letter}">same</a>' for letter in "abc"))


@pytest.mark.parametrize(
    "answer", [lambda _: SHOP, calendar, growing_query, two_by_turns, breadcrumbs, not_found, branching]
)
async def test_a_trap_ends_by_itself(answer: Callable[[str], Page]) -> None:
    with Website(answer=answer) as site:
        crawled = await crawl(site.url, limit=500)
    assert 2 <= len(crawled.pages) <= 30
    assert crawled.types[-1] == "crawl.completed"
    assert crawled.summary is not None
    assert crawled.summary.kept_back >= 1


async def test_a_trap_beside_a_site_costs_the_site_nothing() -> None:
    def answer(path: str) -> Page:
        if path.startswith("/calendar"):
            return calendar(path)
        number = int(path.rpartition("/")[2] or 0)
        following = [f"/pages/{number + 1}"] if number < 40 else []
        return html(f"<p>Page {number}", links=[*following, "/calendar?month=0"])

    with Website(answer=answer) as site:
        crawled = await crawl(site.url)
    assert {f"/pages/{number}" for number in range(1, 41)} <= set(crawled.pages)
    assert len(crawled.pages) < 70


async def test_lists_without_text_of_their_own_are_followed_to_the_end() -> None:
    """A gallery: each list looks like all others, but what it lists does not."""

    def answer(path: str) -> Page:
        if path.startswith("/photo/"):
            return html(f"<p>A photo of bird {path}", title=path)
        number = int(path.partition("page=")[2] or 0)
        images = "".join(f'<a href="/photo/{number}-{each}"><img src="x.png"></a>' for each in range(3))
        following = f'<a href="/?page={number + 1}"><img src="next.png"></a>' if number < 20 else ""
        return Page(f"<html><head><title>Gallery</title></head><body>{images}{following}</body></html>")

    with Website(answer=answer) as site:
        crawled = await crawl(site.url)
    assert sum(path.startswith("/photo/") for path in crawled.pages) == 21 * 3


async def test_a_long_chain_of_pages_is_no_trap() -> None:
    def answer(path: str) -> Page:
        number = int(path.rpartition("/")[2] or 0)
        return html(f"<p>Page {number}", links=[f"/{number + 1}"] if number < 60 else [])

    with Website(answer=answer) as site:
        crawled = await crawl(site.url)
    assert len(crawled.pages) == 61
