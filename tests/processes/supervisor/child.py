"""A process to supervise: `python child.py KIND [ARGUMENT]`; says in FOLDER what happens to it."""

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from crawlscope.core import service_file
from crawlscope.processes.supervisor.lifeline import VARIABLE, follow_parent

FOLDER = Path(os.environ["CHILD_FOLDER"])
LIFELINE = os.fstat(int(os.environ[VARIABLE])).st_ino


def note(text: str) -> None:
    descriptor = os.open(FOLDER / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text} {os.getpid()}\n".encode())
    os.close(descriptor)


def work(name: str) -> None:
    """Until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    note(f"start {name}")
    while not stop.wait(0.05):
        pass
    note(f"stop {name}")


def stubborn(name: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(f"start {name}")
    time.sleep(60)


def fail(code: str) -> None:
    note("start fail")
    sys.stderr.write("something is wrong here\n")
    sys.exit(int(code))


def descriptors(pid: int) -> set[int]:
    """The open files of a process, if the system shows them."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            found.add(link.stat().st_ino)
    return found


def grandparent(name: str) -> None:
    """Starts a child that must not hold the lifeline, even where descriptors are not closed for it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    if LIFELINE in descriptors(child.pid):
        note("leak")
    work(name)
    child.kill()


def api(_name: str) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    data_dir = Path(os.environ["CRAWLSCOPE_DATA_DIR"])
    service_file.write(data_dir, f"http://127.0.0.1:{server.server_port}")
    work("api")
    service_file.remove(data_dir)


if __name__ == "__main__":
    follow_parent(grace_seconds=1)
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else sys.argv[1])
