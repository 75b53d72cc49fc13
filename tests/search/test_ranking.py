import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.indexing.index.port import Halves, Hit
from crawlscope.search.ranking import WINDOW, RankedPage, lift_pages, raise_by_parts, rank_pages
from crawlscope.search.schemas import Mode


def hits(*found: tuple[str, float]) -> list[Hit]:
    """Hits of chunks such as `a2`: number 2 of page `a`."""
    return [Hit(chunk.encode(), score, chunk[0].encode()) for chunk, score in found]


def order(pages: list[RankedPage]) -> list[str]:
    return [page.document.decode() for page in pages]


def test_a_page_is_ranked_by_its_best_chunk_in_each_half() -> None:
    halves = Halves(
        bm25=hits(("a1", 9.0), ("b1", 8.0), ("c1", 1.0)),
        dense=hits(("c1", 0.9), ("b2", 0.8), ("a2", 0.1)),
    )
    best, *_ = pages = rank_pages(halves, "hybrid")
    assert order(pages)[0] == "b"
    assert (best.bm25, best.dense) != (None, None)
    assert best.bm25
    assert (best.bm25.rank, best.bm25.best.id) == (2, b"b1")
    assert best.dense
    assert (best.dense.rank, best.dense.best.id) == (2, b"b2")
    assert [hit.id for hit in best.chunks] == [b"b2", b"b1"]


def test_ranks_count_pages_not_chunks() -> None:
    pages = rank_pages(Halves([], hits(("a1", 9.0), ("a2", 8.0), ("b1", 7.0))), "keyword")
    assert [(page.document.decode(), page.bm25 and page.bm25.rank, page.dense) for page in pages] == [
        ("a", 1, None),
        ("b", 2, None),
    ]


def test_one_half_alone_ranks_by_its_own_scores() -> None:
    found = hits(("a1", 9.0), ("b1", 7.0), ("a2", 5.0))
    for mode, halves in (("keyword", Halves([], found)), ("semantic", Halves(found, []))):
        pages = rank_pages(halves, mode)  # type: ignore[arg-type]
        assert [(page.document.decode(), page.score) for page in pages] == [("a", 9.0), ("b", 7.0)]


def test_no_hits_give_no_pages() -> None:
    assert rank_pages(Halves([], []), "hybrid") == []


def test_lifted_pages_have_the_best_score_and_show_their_chunk_first() -> None:
    found = hits(("a1", 9.0), ("b1", 7.0), ("b2", 6.0), ("c1", 5.0))
    pages = lift_pages(rank_pages(Halves([], found), "keyword"), [found[2], found[3]])
    assert order(pages) == ["b", "c", "a"]
    assert pages[0].score == 9.0
    assert [hit.id for hit in pages[0].chunks] == [b"b2", b"b1"]


def test_a_hit_with_a_part_that_answers_passes_those_just_above() -> None:
    found = hits(("a1", 0.60), ("b1", 0.58), ("c1", 0.55), ("d1", 0.30))
    raised = raise_by_parts(found, {b"a1": 0.10, b"b1": 0.10, b"c1": 0.30, b"d1": 0.15})
    assert [hit.id for hit in raised] == [b"c1", b"a1", b"b1", b"d1"]
    assert raise_by_parts(found, {}) == found


def test_hits_without_known_parts_keep_their_place() -> None:
    found = hits(("a1", 0.6), ("b1", 0.5), ("c1", 0.4))
    assert raise_by_parts(found, {b"a1": 0.2, b"b1": 0.2}) == found


def test_no_hit_outside_the_window_is_moved() -> None:
    found = [Hit(f"{n}".encode(), 1.0 - n / 1000, f"{n}".encode()) for n in range(WINDOW + 9)]
    raised = raise_by_parts(found, {b"0": -9.0, b"1": 0.0, b"2": 0.0})
    assert [hit.id for hit in raised[WINDOW - 2 : WINDOW]] == [b"0", found[WINDOW - 1].id]
    assert raised[WINDOW:] == found[WINDOW:]


@pytest.mark.parametrize("mode", ["semantic", "hybrid"])
def test_more_hits_follow_a_page_whose_parts_are_far_from_the_query(mode: Mode) -> None:
    dense = [Hit(f"{n}".encode(), 0.6 - n / 10_000, f"{n}".encode()) for n in range(2 * WINDOW)]
    by_keyword = [Hit(hit.id, 9.0 - n / 100, hit.document) for n, hit in enumerate(reversed(dense))][:WINDOW]
    if mode == "semantic":
        by_keyword = []
    surpluses = {hit.id: 0.2 for hit in dense[:50]} | {b"7": 0.0}
    orders = [
        order(rank_pages(Halves(raise_by_parts(dense[:depth], surpluses), by_keyword), mode))
        for depth in (WINDOW, 2 * WINDOW)
    ]
    assert orders[1][: len(orders[0])] == orders[0]


chunks = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 99)), unique=True, min_size=1, max_size=60
)


@given(chunks, chunks, st.integers(0, 30), st.sampled_from(["hybrid", "keyword", "semantic"]))
def test_more_candidates_append_pages_and_reorder_none(
    bm25: list[tuple[str, int]], dense: list[tuple[str, int]], less: int, mode: Mode
) -> None:
    """Pages of a few chunks behind a window that other pages fill."""

    def half(found: list[tuple[str, int]], prefix: str) -> list[Hit]:
        window = [
            Hit(f"{prefix} {n}".encode(), 900.0 - n, f"{prefix} {n % 50}".encode()) for n in range(WINDOW)
        ]
        deep = [
            Hit(f"{url}{n}".encode(), 500.0 - place, url.encode()) for place, (url, n) in enumerate(found)
        ]
        return [*window, *deep]

    whole = Halves(half(dense, "d"), half(bm25, "k"))
    if mode != "hybrid":
        whole = Halves(whole.dense if mode == "semantic" else [], whole.bm25 if mode == "keyword" else [])
    depth = WINDOW + less
    shallow = order(rank_pages(Halves(whole.dense[:depth], whole.bm25[:depth]), mode))
    assert order(rank_pages(whole, mode))[: len(shallow)] == shallow
