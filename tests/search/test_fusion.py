import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.search.fusion import (
    DENSE_WEIGHT,
    NAMING_WEIGHT,
    UNREAD_WEIGHT,
    Fusion,
    Half,
    dense_weight,
)

urls = st.sampled_from([f"https://h/{letter}" for letter in "abcdefghij"])
scores = st.floats(0, 1e6, allow_nan=False)
halves = st.dictionaries(urls, scores, max_size=10)


def fused(bm25: dict[str, float], dense: dict[str, float], **more: float) -> dict[str, float]:
    fusion = Fusion.of(Half(bm25), Half(dense), **more)
    return {url: fusion.score(bm25.get(url), dense.get(url)) for url in bm25.keys() | dense.keys()}


def test_best_of_both_halves_scores_one() -> None:
    assert fused({"a": 9.0, "b": 1.0}, {"a": 0.9, "b": 0.1})["a"] == pytest.approx(1.0)


def test_each_half_counts_by_its_weight() -> None:
    assert fused({"a": 9.0}, {"b": 0.9}) == pytest.approx({"a": 0.35, "b": 0.65})
    assert fused({"a": 9.0}, {"b": 0.9}, dense_weight=0.2) == pytest.approx({"a": 0.8, "b": 0.2})


def test_a_half_alone_gives_its_weight() -> None:
    assert fused({"a": 9.0}, {}) == pytest.approx({"a": 0.35})
    assert fused({}, {"a": 0.5}) == pytest.approx({"a": 0.65})
    assert fused({}, {}) == {}


def test_a_hit_that_stands_out_counts_more_than_many_that_hardly_differ() -> None:
    alike = {f"dense {n}": 0.50 + n / 1000 for n in range(100)}
    ranked = fused({"rare word": 8.0}, {"rare word": 0.50} | alike)
    assert max(ranked, key=lambda url: ranked[url]) == "rare word"


def test_a_score_near_the_floor_counts_less_than_its_part_of_the_best() -> None:
    found = fused({"best": 8.0, "near": 4.0}, {})
    assert 0.0 < found["near"] < found["best"] / 2


def test_where_the_words_lead_a_score_counts_as_its_part_of_the_best() -> None:
    assert fused({"best": 8.0, "half": 4.0}, {}, dense_weight=0.2)["half"] == pytest.approx(0.4)


def test_what_a_half_did_not_find_has_its_floor_there() -> None:
    fusion = Fusion.of(Half({"a": 3.0, "b": 2.0}, floor=2.0), Half({"a": 0.9, "c": 0.5}, floor=0.5))
    assert fusion.score(2.0, None) == fusion.score(1.0, 0.2) == fusion.score(None, None) == 0.0


@given(halves, halves, st.floats(0, 1))
def test_scores_are_from_0_to_1(bm25: dict[str, float], dense: dict[str, float], weight: float) -> None:
    assert all(0.0 <= score <= 1.0 for score in fused(bm25, dense, dense_weight=weight).values())


@given(halves, halves)
def test_better_in_both_halves_is_not_ranked_lower(bm25: dict[str, float], dense: dict[str, float]) -> None:
    ranked = fused(bm25, dense)
    both = [url for url in bm25 if url in dense]
    for better in both:
        for worse in both:
            if bm25[better] >= bm25[worse] and dense[better] >= dense[worse]:
                assert ranked[better] >= ranked[worse]


@given(halves, halves, st.floats(0.01, 100))
def test_the_unit_of_a_half_is_irrelevant(
    bm25: dict[str, float], dense: dict[str, float], factor: float
) -> None:
    coarse = {url: float(round(score)) for url, score in bm25.items()}
    scaled = {url: factor * score for url, score in coarse.items()}
    assert fused(scaled, dense) == pytest.approx(fused(coarse, dense), abs=1e-6)


def test_meaning_counts_less_in_a_language_that_the_model_does_not_read() -> None:
    english, multilingual = "sentence-transformers/all-MiniLM-L6-v2", "intfloat/multilingual-e5-small"
    assert dense_weight(english, "cats", ["en"]) == DENSE_WEIGHT
    assert dense_weight(english, "猫", ["zh"]) == UNREAD_WEIGHT
    assert UNREAD_WEIGHT < dense_weight(english, "gatos", ["es", "en"]) < DENSE_WEIGHT
    assert dense_weight(multilingual, "gatos", ["zh", "es"]) == DENSE_WEIGHT


@pytest.mark.parametrize("name", ["getUserName", "HTMLParser", "max_size", "std::vector", "`main`"])
def test_meaning_counts_less_beside_a_name_of_code(name: str) -> None:
    assert dense_weight("all-MiniLM-L6-v2", f"What does {name} do?", ["en"]) == NAMING_WEIGHT
    assert dense_weight("all-MiniLM-L6-v2", f"{name} 是什么", ["zh"]) == UNREAD_WEIGHT


@pytest.mark.parametrize(
    "query",
    ["Who was the first director of the V&A?", "scale a 3d array", "a 3D film in 4K", "it `", "FHA loan"],
)
def test_other_words_are_no_names_of_code(query: str) -> None:
    assert dense_weight("all-MiniLM-L6-v2", query, ["en"]) == DENSE_WEIGHT


def test_scores_are_the_same_to_the_last_digit_in_each_process() -> None:
    program = """
from crawlscope.search.fusion import Fusion, Half
halves = [Half({b"%d" % page: (page * step % 97) / 7 for page in range(0, 199, step)}) for step in (1, 2)]
print(Fusion.of(*halves))
"""
    answers = {
        subprocess.check_output([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2", "3")
    }
    assert len(answers) == 1
