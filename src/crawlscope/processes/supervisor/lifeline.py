"""Makes children end with their parent, also with one that is killed by SIGKILL.

The parent alone holds the writing end of a pipe, and each child blocks in reading it. However the parent
ends, the system closes the pipe and the children detect it.
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
        """Ends every child that is left."""
        if not self._closed:
            self._closed = True
            os.close(self._reading)
            os.close(self._writing)


def follow_parent(grace_seconds: float = GRACE_SECONDS) -> bool:
    """Makes this process end with its parent: SIGTERM to itself, and a hard exit after the grace.

    False, and nothing happens, when no parent holds a lifeline. Children of this process do not inherit it.
    """
    try:
        descriptor = int(os.environ.pop(VARIABLE, ""))
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):  # the variable came further than the pipe
            return False
    except (ValueError, OSError):
        return False

    def end_with_parent() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    os.set_inheritable(descriptor, False)
    threading.Thread(target=end_with_parent, name="lifeline", daemon=True).start()
    return True
