"""Where the running service says how it is reached: `DATA_DIR/service.json`."""

import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

NAME = "service.json"
WEBHOOK_PATH = "/api/webhook/firecrawl"
"""Where, below its address, it takes deliveries."""
CHANGES_PATH = "/api/webhook/changedetection"
"""Where, below its address, it is told of changed pages."""
SAME_START_SECONDS = 1.0


@dataclass(frozen=True)
class RunningService:
    url: str
    pid: int


def write(data_dir: Path, url: str) -> None:
    """Announces this process. Whoever reads meanwhile sees the old file or the new one, whole."""
    entry = {"url": url, "pid": os.getpid(), "started": _started(psutil.Process())}
    staging = data_dir / f".{NAME}-{secrets.token_hex(4)}"
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(entry, file)
        staging.replace(data_dir / NAME)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def read(data_dir: Path) -> RunningService | None:
    """None without a running service: no file, a torn one, or one whose process is gone."""
    try:
        entry = json.loads((data_dir / NAME).read_text())
        service, started = RunningService(str(entry["url"]), int(entry["pid"])), float(entry["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return service if _runs(service.pid, started) else None


def remove(data_dir: Path) -> None:
    """Takes the announcement back, unless another process has announced itself since."""
    service = read(data_dir)
    if service is None or service.pid == os.getpid():
        (data_dir / NAME).unlink(missing_ok=True)


def _runs(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return (
            process.status() != psutil.STATUS_ZOMBIE and abs(_started(process) - started) < SAME_START_SECONDS
        )
    except (psutil.Error, ValueError):
        return False


def _started(process: psutil.Process) -> float:
    """Tells a process from a later one with its number; setting the clock must not change it."""
    return process.create_time() - (psutil.boot_time() if sys.platform == "linux" else 0.0)
