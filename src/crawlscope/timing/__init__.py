"""How long everything took: `context` measures, `store` writes, `standalone` serves programs of your own."""

from crawlscope.timing.context import TimingContext, note_wait, scope, waits_apart

__all__ = ["TimingContext", "note_wait", "scope", "waits_apart"]
