"""The address of the running service: the service writes it to `DATA_DIR/service.json`."""

import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from crawlscope.core.settings import Settings

NAME = "service.json"
WEBHOOK_PATH = "/api/webhook/firecrawl"
"""The path of the webhook endpoint for deliveries."""
CHANGES_PATH = "/api/webhook/changedetection"
"""The path of the webhook endpoint for changed pages."""
SAME_START_SECONDS = 1.0


@dataclass(frozen=True)
class RunningService:
    url: str
    pid: int


def write(data_dir: Path, url: str, pid: int | None = None) -> None:
    """Announces this process, or another one. A reader sees the old file or the new one, never a part of
    one."""
    process = psutil.Process(pid)
    entry = {"url": url, "pid": process.pid, "started": _started(process)}
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
    """None without a running service: no file, a torn one, or one whose process has ended."""
    try:
        entry = json.loads((data_dir / NAME).read_text())
        service, started = RunningService(str(entry["url"]), int(entry["pid"])), float(entry["started"])
        process = psutil.Process(service.pid)
        same = abs(_started(process) - started) < SAME_START_SECONDS
        return service if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def remove(data_dir: Path) -> None:
    """Withdraws the announcement, unless another process has announced itself since."""
    service = read(data_dir)
    if service is None or service.pid == os.getpid():
        (data_dir / NAME).unlink(missing_ok=True)


def public_address(settings: Settings) -> str:
    """The URL at which other services reach this one, without a slash at its end."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    running = read(settings.data_dir)
    return running.url.rstrip("/") if running else f"http://{settings.host}:{settings.port}"


def _started(process: psutil.Process) -> float:
    """Differs for a later process with the same id; setting the clock does not change it."""
    return process.create_time() - (psutil.boot_time() if sys.platform == "linux" else 0.0)
