"""Measures the whole table of docs/performance.md: one part after the other, each in processes of its own.

    python -m benchmarks [--quick] [--only NAME...] [--rounds N] [--json FILE]

A part that fails does not stop the others. The exit code is 1 if a part failed or missed a limit.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.part import Row, as_json, from_json, options_parser, table

PARTS = (
    *("ingest", "cpu", "steps", "endpoint", "latency", "overload", "pipeline", "recrawl"),
    "embedding_server",
    *(
        "workers",
        "index",
        "search",
        "storage",
        "insights",
        "years",
        "memory",
        "idle",
        "text",
        "timing",
        "telemetry",
        "viewers",
        "dashboard",
    ),
)
"""In the order in which they run."""
MAX_SECONDS = 600.0
"""The limit for one part, besides its minutes of load and as long again until all pages are searchable."""
STOP_SECONDS = 90.0
SHOWN_CHARACTERS = 2_000
"""The length of the shown end of a failed part's output."""


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="NAME", help=", ".join(PARTS)
    )
    given = parser.parse_args()
    rows: list[Row] = []
    failed = []
    for name in given.only:
        began = time.monotonic()
        measured = measure(name, given)
        rows += measured or ()
        if measured is None:
            failed.append(name)
        print(
            f"{name}: {'failed' if measured is None else 'done'} in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if given.json:
            given.json.write_text(json.dumps(as_json(rows), indent=1, ensure_ascii=False) + "\n")
    print(f"\n{table(rows)}")
    missed = sum(row.met is False for row in rows)
    if failed or missed:
        sys.exit(f"{missed} limits not met" + (f"; failed: {', '.join(failed)}" if failed else ""))


def measure(name: str, given: argparse.Namespace) -> Sequence[Row] | None:
    """Runs the part as a command of its own, so that it leaves nothing behind; None if it failed."""
    limit = MAX_SECONDS + 2 * 60 * (given.minutes or 0)
    with tempfile.TemporaryDirectory() as folder:
        written, errors = Path(folder, "rows.json"), Path(folder, "errors.txt")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(written)]
        command += ["--quick"] if given.quick else []
        command += ["--details"] if given.details else []
        for option in ("rounds", "pages", "minutes", "operations"):
            if (value := getattr(given, option)) is not None:
                command += [f"--{option}", str(value)]
        with errors.open("wb") as log, subprocess.Popen(command, stdout=_shown(given), stderr=log) as running:
            try:
                code = running.wait(limit)
            except subprocess.TimeoutExpired:
                print(f"{name}: stopped after {limit:.0f} s")
                running.send_signal(signal.SIGINT)  # it stops what it started
                with suppress(subprocess.TimeoutExpired):
                    running.wait(STOP_SECONDS)
                running.kill()
                return None
        if code != 0:
            print(errors.read_text(errors="replace")[-SHOWN_CHARACTERS:])
            return None
        return from_json(json.loads(written.read_text()))


def _shown(given: argparse.Namespace) -> int | None:
    return None if given.details else subprocess.DEVNULL


if __name__ == "__main__":
    main()
