from crawlscope.changes.schemas import CrawlWatched, PageNotWatched
from crawlscope.cli.output.changed import MAX_SHOWN, watched_text


def shown(refused: int = 0, **numbers: int) -> str:
    pages = [PageNotWatched(url=f"https://a.example/{n}\x1b[2J", reason="too long") for n in range(refused)]
    given = {"created": 0, "known": 0, "left": 0, **numbers}
    return watched_text(CrawlWatched(crawl_id="c", refused=pages, **given))


def test_the_numbers_are_one_line():
    assert shown(created=1, known=1_200) == "1 watch created, 1,200 known before."
    assert (
        shown(created=2, left=7) == "2 watches created, 0 known before. 7 pages left: run the command again."
    )


def test_pages_that_are_not_watched_are_named_up_to_a_number():
    assert shown(2).splitlines()[1:] == [
        "https://a.example/0[2J: too long",
        "https://a.example/1[2J: too long",
    ]
    lines = shown(MAX_SHOWN + 5).splitlines()
    assert len(lines) == MAX_SHOWN + 2
    assert lines[-1].startswith("and 5 more")
