from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.batches import batches


@given(st.lists(st.binary(max_size=30)), st.integers(1, 60), st.none() | st.integers(1, 5))
def test_batches_keep_the_order_and_their_limits(
    items: list[bytes], max_weight: int, max_items: int | None
) -> None:
    made = list(batches(items, len, max_weight, max_items))
    assert [item for batch in made for item in batch] == items
    assert all(sum(map(len, batch)) <= max_weight or len(batch) == 1 for batch in made)
    assert all(max_items is None or len(batch) <= max_items for batch in made)
