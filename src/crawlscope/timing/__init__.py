"""What everything took: `TimingContext` measures, `store` writes, `buffer` waits in between."""

from crawlscope.timing.context import TimingContext, scope

__all__ = ["TimingContext", "scope"]
