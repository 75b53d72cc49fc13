"""Caches answers that read all operations of a large crawl, as long as the crawl does not change."""

import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

LARGE_PAGES = 2_000
MAX_AGE_SECONDS = 60.0
"""A change that no column of the crawl's session shows, such as the end of an outage, is seen after this
time."""
MAX_ANSWERS = 64


class _Answer(NamedTuple):
    value: Any
    session: Mapping[Any, Any]
    until: float


class AnswerCache:
    """Answers about crawls that have ended and are settled. Those about smaller crawls are computed each
    time."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, _Answer] = {}

    async def get(self, session: Mapping[Any, Any], about: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """`session` is the crawl's row; `about` says what the answer is on."""
        is_over = session["completed_at"] is not None and not session["pages_pending"]
        if not is_over or session["total_pages"] < LARGE_PAGES:
            return await make()
        key, now = (session["crawl_id"], about), time.monotonic()
        cached = self._answers.get(key)
        if cached and cached.until > now and cached.session == session:
            value: T = cached.value
            return value
        value = await make()
        self._answers.pop(key, None)
        self._answers[key] = _Answer(value, session, now + MAX_AGE_SECONDS)
        if len(self._answers) > MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        return value
