"""Results of a function that a process remembers."""

from collections.abc import Callable
from typing import TypeVar

Asked = TypeVar("Asked", bound=str | bytes)
Result = TypeVar("Result")

MAX_LENGTH_KEPT = 1_000


class Known(dict[Asked, Result]):
    """Calls the function for what is not known. Threads may ask at the same time.

    Begins from the start once it has `max_kept` results.
    """

    def __init__(self, function: Callable[[Asked], Result], max_kept: int) -> None:
        super().__init__()
        self._function = function
        self._max_kept = max_kept

    def __missing__(self, asked: Asked) -> Result:
        result = self._function(asked)
        if len(asked) <= MAX_LENGTH_KEPT:
            if len(self) >= self._max_kept:
                self.clear()
            self[asked] = result
        return result
