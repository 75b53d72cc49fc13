"""A child must not outlive its parent, even one that got SIGKILL and could tell nobody.

The parent alone holds the writing end of a pipe; each child blocks reading. However the parent ends, the
system closes the pipe and the children notice.
"""

import os
import signal
import stat
import threading
import time

VARIABLE = "CRAWLSCOPE_LIFELINE_FD"
GRACE_SECONDS = 10.0


class Lifeline:
    """The parent's side. Start children with `descriptors` inherited and `environment` added to theirs."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._closed = False

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._reading,)

    @property
    def environment(self) -> dict[str, str]:
        return {VARIABLE: str(self._reading)}

    def close(self) -> None:
        """Tells every child that is left to end."""
        if not self._closed:
            self._closed = True
            os.close(self._reading)
            os.close(self._writing)


def follow_parent(grace_seconds: float = GRACE_SECONDS) -> bool:
    """Makes this process end with its parent: SIGTERM to itself, and a hard exit after the grace.

    False, and nothing happens, when no parent holds a lifeline. Children of this process do not inherit it.
    """
    descriptor = _inherited(os.environ.pop(VARIABLE, ""))
    if descriptor is None:
        return False
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_follow, args=(descriptor, grace_seconds), name="lifeline", daemon=True).start()
    return True


def _inherited(number: str) -> int | None:
    """The variable alone may have come further than the pipe."""
    try:
        descriptor = int(number)
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (ValueError, OSError):
        return None


def _follow(descriptor: int, grace_seconds: float) -> None:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds)
    os._exit(1)
