"""Stored values equal the given ones, as far as PostgreSQL can hold them."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.values import REPLACEMENT, hash_key, storable, storable_json

parts = st.sampled_from(["\\", "\\u0000", "u0000", '"', "\x00", "\ud800", "\udc00", "é"])
texts = st.text() | st.lists(parts, max_size=5).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def held(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [held(each) for each in value]
    return {held(name): held(each) for name, each in value.items()} if isinstance(value, dict) else value


@given(values)
def test_each_text_within_a_value_is_held_as_if_it_stood_alone(value: Any) -> None:
    stored = storable_json(value)
    assert json.loads(stored) == held(value)
    assert "\x00" not in stored
    stored.encode()


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "C:\\u0000\\u0000", "see \\u0000"])
def test_words_about_nul_are_no_nul(text: str) -> None:
    assert json.loads(storable_json({text: text})) == {text: text}


@pytest.mark.parametrize("text", ["\x00", "\\\x00", "\\\\\x00", "\x00\x00"])
def test_nul_is_replaced_whatever_stands_before_it(text: str) -> None:
    assert json.loads(storable_json([text])) == [text.replace("\x00", REPLACEMENT)]


def test_what_has_no_json_form_is_its_text_or_null() -> None:
    assert json.loads(storable_json([float("nan"), float("inf"), {1}, "\x00"])) == [
        *(None, None, "{1}", REPLACEMENT)
    ]


def test_long_texts_are_not_kept_for_the_sake_of_their_keys() -> None:
    tracemalloc.start()
    try:
        for number in range(20):
            hash_key("body", f"{number} " * 50_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
