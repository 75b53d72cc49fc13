"""Batches of items that are limited in weight."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(
    items: Iterable[T], weight: Callable[[T], int], max_weight: int, max_items: int | None = None
) -> Iterator[list[T]]:
    """Keeps the order. An item that is heavier than `max_weight` is a batch of its own."""
    batch: list[T] = []
    total = 0
    for item in items:
        added = weight(item)
        if batch and (len(batch) == max_items or total + added > max_weight):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += added
    if batch:
        yield batch
