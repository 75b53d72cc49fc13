import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.search.fusion import fuse

ids = st.integers(0, 30)
scores = st.floats(-1e6, 1e6, allow_nan=False)
halves = st.dictionaries(ids, scores, max_size=30)
windows = st.integers(1, 40)


def test_weights_of_a_hit_that_is_best_in_one_half() -> None:
    assert fuse({"a": 9.0, "b": 1.0}, {"b": 0.9, "a": 0.1}, window=2) == [("a", 0.6), ("b", 0.4)]


def test_scores_are_stretched_between_best_and_last() -> None:
    fused = dict(fuse({"a": 10.0, "b": 6.0, "c": 2.0}, {"b": 0.9, "d": 0.5}, window=3))
    assert fused == pytest.approx({"a": 0.6, "b": 0.7, "c": 0.0, "d": 0.0})


def test_few_hits_by_keyword_are_measured_against_the_score_of_the_rest() -> None:
    fused = dict(fuse({"a": 5.0, "b": 4.0}, {"c": 0.9, "d": 0.1}, window=3))
    assert fused == pytest.approx({"a": 0.6, "b": 0.48, "c": 0.4, "d": 0.0})


def test_a_single_hit_is_the_best_of_its_half() -> None:
    assert fuse({"a": 0.1}, {}) == [("a", 0.6)]
    assert fuse({}, {"a": -0.5}) == [("a", 0.4)]
    assert fuse({"a": 3.0}, {"a": 0.2}) == [("a", 1.0)]


def test_equal_scores_are_all_best_and_ordered_by_id() -> None:
    assert fuse({"c": 2.0, "a": 2.0, "b": 2.0}, {}) == [("a", 0.6), ("b", 0.6), ("c", 0.6)]


def test_no_hits_give_no_ranking() -> None:
    assert fuse({}, {}) == []


def test_hits_after_the_window_are_ordered_by_rank() -> None:
    ranked = fuse({"a": 5.0, "d": 4.0, "c": 3.0, "b": 2.0}, {}, window=2)
    assert ranked == [("a", 0.6), ("d", 0.0), ("c", 0.0), ("b", 0.0)]


@given(halves, halves, windows)
def test_every_hit_is_ranked_once_with_a_score_from_0_to_1(
    bm25: dict[int, float], dense: dict[int, float], window: int
) -> None:
    ranked = fuse(bm25, dense, window=window)
    assert sorted(one for one, _ in ranked) == sorted(bm25.keys() | dense.keys())
    values = [score for _, score in ranked]
    assert all(0.0 <= score <= 1.0 for score in values)
    assert values == sorted(values, reverse=True)


@given(halves, halves, windows, st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_irrelevant(
    bm25: dict[int, float], dense: dict[int, float], window: int, random: object
) -> None:
    def shuffled(half: dict[int, float]) -> dict[int, float]:
        items = list(half.items())
        random.shuffle(items)  # type: ignore[attr-defined]  # Hypothesis hands out a random.Random
        return dict(items)

    assert fuse(bm25, dense, window=window) == fuse(shuffled(bm25), shuffled(dense), window=window)


@given(halves, halves, windows)
def test_better_in_both_halves_is_not_ranked_lower(
    bm25: dict[int, float], dense: dict[int, float], window: int
) -> None:
    place = {one: at for at, (one, _) in enumerate(fuse(bm25, dense, window=window))}
    both = [one for one in bm25 if one in dense]
    for better in both:
        for worse in both:
            if bm25[better] > bm25[worse] and dense[better] > dense[worse]:
                assert place[better] < place[worse]


@given(halves, halves, st.integers(1, 10), st.integers(0, 20))
def test_more_candidates_append_and_reorder_nothing(
    bm25: dict[int, float], dense: dict[int, float], window: int, beyond: int
) -> None:
    def best(half: dict[int, float]) -> dict[int, float]:
        """Cut where an engine would: equal scores are cut off anywhere, so none are left that tie."""
        distinct = dict(zip(half.values(), half.keys(), strict=True))
        ranked = sorted(((one, score) for score, one in distinct.items()), key=lambda hit: -hit[1])
        return dict(ranked)

    whole_bm25, whole_dense = best(bm25), best(dense)
    depth = window + beyond
    shallow = fuse(
        dict(list(whole_bm25.items())[:depth]), dict(list(whole_dense.items())[:depth]), window=window
    )
    assert fuse(whole_bm25, whole_dense, window=window)[: len(shallow)] == shallow


@given(halves, st.floats(0.01, 100), st.floats(-100, 100))
def test_only_the_proportions_of_a_half_count(half: dict[int, float], factor: float, shift: float) -> None:
    coarse = {one: float(round(score)) for one, score in half.items()}
    moved = {one: factor * score + shift for one, score in coarse.items()}
    assert dict(fuse({}, moved)) == pytest.approx(dict(fuse({}, coarse)), abs=1e-3)
