"""What everything took: `TimingContext` measures, `store` writes, `buffer` waits in between."""

from crawlscope.timing.context import TimingContext, note_wait, scope, waits_apart

__all__ = ["TimingContext", "note_wait", "scope", "waits_apart"]
