"""How long to wait between attempts that fail.

Retry loops whose attempts are one call use `retry_context`. Code that counts failures itself, or stores their
number, uses `backoff`.
"""

import random

import stamina
from stamina.instrumentation import set_on_retry_hooks

retry_context = stamina.retry_context

set_on_retry_hooks(())  # callers log an outage once; stamina would log a warning for each retry


def backoff(failures: int, *, first_seconds: float, max_seconds: float, jitter: float = 0.0) -> float:
    """Seconds to wait after `failures` failed attempts in a row; 0 after none.

    `first_seconds` after the first, twice as long after each further one, at most `max_seconds`. `jitter`
    (0 to 1) is the part of the delay that chance may take off.
    """
    if failures <= 0:
        return 0.0
    delay = min(first_seconds * 2.0 ** min(failures - 1, 64), max_seconds)
    return delay * random.uniform(1.0 - jitter, 1.0)  # noqa: S311 - spreads load
