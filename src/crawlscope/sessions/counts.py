"""What pages add to their crawl's counts: pure rules, no I/O."""

from dataclasses import dataclass

from crawlscope.core.vocabulary import PageState


@dataclass(frozen=True)
class Counts:
    """What pages add to their crawl: the names are the session's columns."""

    total_pages: int = 0
    pages_indexed: int = 0
    pages_failed: int = 0
    pages_pending: int = 0
    pages_unchanged: int = 0
    pages_empty: int = 0
    pages_cancelled: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value - getattr(other, name) for name, value in vars(self).items()})

    def __mul__(self, times: int) -> "Counts":
        return Counts(**{name: value * times for name, value in vars(self).items()})


def counts_of(state: PageState | None) -> Counts:
    """What one page in this state counts for; None is a page that does not exist yet."""
    if state is None:
        return Counts()
    return Counts(
        total_pages=int(state.succeeded or state is PageState.FAILED),
        pages_indexed=int(state.succeeded),
        pages_failed=int(state is PageState.FAILED),
        pages_pending=int(not state.settled),
        pages_unchanged=int(state is PageState.UNCHANGED),
        pages_empty=int(state is PageState.EMPTY),
        pages_cancelled=int(state is PageState.CANCELLED),
    )
