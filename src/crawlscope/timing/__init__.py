"""What everything took: `TimingContext` measures, `store` writes, `buffer` waits in between."""

from crawlscope.timing.context import TimingContext, current_scope, scope

__all__ = ["TimingContext", "current_scope", "scope"]
