"""Several API processes and workers that share nothing but a PostgreSQL and a Qdrant, as on several hosts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from tests.support.fakes.loopback import free_port
from tests.support.stack import Stack, eventually, log_of, stack_environment

SENDERS = 8
"""Deliveries in progress at once."""
ENDED = frozenset({0, -signal.SIGTERM})


@dataclass
class Member:
    """A process of the fleet, and those that took its place after it was killed."""

    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    pids: list[int] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crawlscope", *self.command],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.pids.append(self.process.pid)

    def kill(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)


class Fleet:
    """Restarts what dies, as systemd and Kubernetes do. Each process has a data folder of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder, self._settings = folder, settings
        self.members: dict[str, Member] = {}
        self.endpoints: list[Stack] = []
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._keep)

    def add(self, name: str, *command: str, source: Path | None = None, **settings: str) -> Member:
        """`source` has the package of another version."""
        environment = stack_environment(self._folder / name, **self._settings, **settings)
        if source:
            environment["PYTHONPATH"] = str(source)
        member = Member(command, environment, log_of(self._folder / name))
        member.start()
        self.members[name] = member
        return member

    def add_endpoint(self, name: str, source: Path | None = None) -> None:
        port = free_port()
        member = self.add(name, "serve", source=source, PORT=str(port))
        assert member.process is not None
        self.endpoints.append(Stack(self._folder / name, f"http://127.0.0.1:{port}", member.process))

    def wait_until_ready(self) -> None:
        for endpoint in self.endpoints:
            eventually(lambda: _status(endpoint), lambda status: status == "ok", 240, every_seconds=0.2)  # noqa: B023

    def deliver(self, events: Iterable[dict[str, Any]]) -> int:
        """Spreads deliveries over the endpoints and repeats each until it was answered with 202.

        Reads an event when a sender is free for it. Returns the number of repetitions.
        """
        turns, unsent, reading = count(), iter(events), threading.Lock()

        def send(event: dict[str, Any]) -> int:
            for repetition in range(10_000):
                endpoint = self.endpoints[next(turns) % len(self.endpoints)]
                with suppress(httpx2.HTTPError):
                    if endpoint.post_event(event).status_code == 202:
                        return repetition
                time.sleep(0.1)
            raise AssertionError("no endpoint accepts deliveries")

        def send_some(_: int) -> int:
            repetitions = 0
            while True:
                with reading:
                    event = next(unsent, None)
                if event is None:
                    return repetitions
                repetitions += send(event)

        with ThreadPoolExecutor(SENDERS) as senders:
            return sum(senders.map(send_some, range(SENDERS)))

    def workers_by_pid(self) -> dict[int, str]:
        return {pid: name for name, member in self.members.items() for pid in member.pids}

    def stop(self, codes: Set[int] = ENDED) -> dict[str, float]:
        """Ends all with SIGTERM at once; returns how long each took. Fails for another exit code."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        began, took = time.monotonic(), dict[str, float]()
        for member in self.members.values():
            assert member.process is not None
            member.process.terminate()
        for name, member in self.members.items():
            assert member.process is not None
            code = member.process.wait(120)
            took[name] = time.monotonic() - began
            assert code in codes, f"{name} ended with {code}: {member.log.read_text()[-2_000:]}"
        return took

    def keep_running(self) -> None:
        """From now on, what dies is started again after a moment."""
        self._supervisor.start()

    def _keep(self) -> None:
        while not self._stopping.wait(0.2):
            for member in self.members.values():
                if member.process is not None and member.process.poll() is not None:
                    member.start()


@contextmanager
def running_fleet(folder: Path, serves: int, workers: int, **settings: str) -> Iterator[Fleet]:
    """`settings` name the database and the index. The tables must be there."""
    fleet = Fleet(folder, **settings)
    try:
        for number in range(1, serves + 1):
            fleet.add_endpoint(f"serve-{number}")
        for number in range(1, workers + 1):
            fleet.add(f"worker-{number}", "worker")
        fleet.wait_until_ready()
        yield fleet
    finally:
        fleet._stopping.set()
        for member in fleet.members.values():
            member.kill()
        for endpoint in fleet.endpoints:
            endpoint.http.close()
            endpoint.anonymous.close()


def migrate(folder: Path, **settings: str) -> None:
    environment = stack_environment(folder, **settings)
    subprocess.run([sys.executable, "-m", "crawlscope", "db", "upgrade"], env=environment, check=True)


def attempts_by_member(fleet: Fleet, attempts: dict[str, int]) -> dict[str, int]:
    """`attempts` are by worker: host and process."""
    names, found = fleet.workers_by_pid(), defaultdict[str, int](int)
    for worker, number in attempts.items():
        found[names[int(worker.rpartition(":")[2])]] += number
    return dict(found)


def _status(endpoint: Stack) -> str:
    with suppress(httpx2.HTTPError):
        return str(endpoint.http.get("/health", timeout=5).json()["status"])
    return "down"
