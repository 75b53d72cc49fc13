"""Installs the built wheels into empty environments and runs the demo from each, as a new user would.

    python deploy/try_wheels.py [DIST] [--python PATH...] [--only pip uvx pipx] [--command demo]

DIST (default: dist) is what `make dist` writes. Every Python from 3.11 that is found here is tried with pip,
uvx and pipx with this one. Each trial has a fresh folder and an empty environment, as with `env -i`. The
sdist must build a wheel. The exit code is 1 if a trial fails.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
WAYS = ("sdist", "pip", "uvx", "pipx")
MAX_SECONDS = 1_800
SHOWN_CHARACTERS = 2_000
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
KEPT = (
    "SSL_CERT_FILE",
    "PIP_INDEX_URL",
    "PIP_CONFIG_FILE",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_CACHE_DIR",
)
"""How the package index is reached."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dist", nargs="?", type=Path, default=Path("dist"))
    parser.add_argument("--python", nargs="+", type=Path, help="instead of those that are found")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--command", type=shlex.split, default=["demo"], help="of crawlscope")
    given = parser.parse_args()
    wheels = [newest(given.dist, name) for name in ("crawlscope-*.whl", "crawlscope_minilm-*.whl")]
    trials = trials_of(given, wheels)
    failed = [name for name, trial in trials if not tried(name, trial)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def trials_of(given: argparse.Namespace, wheels: list[Path]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    if "sdist" in given.only:
        yield "sdist", lambda folder: build_again(newest(given.dist, "crawlscope-*.tar.gz"), folder)
    if "pip" in given.only:
        for python in given.python or pythons():
            yield (
                f"pip, {python}",
                lambda folder, python=python: with_pip(folder, python, wheels, given.command),
            )
    if "uvx" in given.only:
        yield "uvx", lambda folder: with_uvx(folder, wheels, given.command)
    if "pipx" in given.only:
        yield "pipx", lambda folder: with_pipx(folder, wheels, given.command)


def newest(dist: Path, pattern: str) -> Path:
    found = sorted(dist.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"{dist / pattern} does not exist: run `make dist` first.")
    return found[-1].resolve()


def pythons() -> list[Path]:
    """One of each version that is installed here, also by pyenv."""
    found = {}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}")]
        candidates += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        existing = [Path(each) for each in candidates if each and has_venv(each)]
        if existing:
            found[version] = existing[0]
    return list(found.values())


def has_venv(python: str) -> bool:
    command = [python, "-c", "import ensurepip, sqlite3, ssl"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def tried(name: str, trial: Callable[[Path], None]) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crawlscope-wheels-", ignore_cleanup_errors=True) as folder:
        try:
            trial(Path(folder))
        except subprocess.CalledProcessError as error:
            print(error.output[-SHOWN_CHARACTERS:])
            print(f"{name}: failed: {' '.join(map(str, error.cmd))}", flush=True)
            return False
    print(f"{name}: done in {time.monotonic() - began:.0f} s", flush=True)
    return True


def with_pip(folder: Path, python: Path, wheels: list[Path], command: list[str]) -> None:
    run(folder, str(python), "-m", "venv", "environment")
    run(
        folder, "environment/bin/python", "-m", "pip", "install", "--quiet", "--no-compile", *map(str, wheels)
    )
    run(folder, "environment/bin/crawlscope", *command)


def with_uvx(folder: Path, wheels: list[Path], command: list[str]) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    run(
        folder,
        uv,
        "tool",
        "run",
        "--system-certs",
        "--from",
        str(wheels[0]),
        "--with",
        str(wheels[1]),
        "crawlscope",
        *command,
    )


def with_pipx(folder: Path, wheels: list[Path], command: list[str]) -> None:
    run(folder, sys.executable, "-m", "venv", "pipx")
    run(folder, "pipx/bin/python", "-m", "pip", "install", "--quiet", "pipx")
    links = f"--pip-args=--find-links={wheels[1].parent}"
    run(folder, "pipx/bin/pipx", "install", links, str(wheels[0]))
    run(folder, "home/.local/bin/crawlscope", *command)


def build_again(sdist: Path, folder: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    run(folder, uv, "build", "--system-certs", "--quiet", "--wheel", "--out-dir", "built", str(sdist))
    newest(folder / "built", "crawlscope-*.whl")


def run(folder: Path, *command: str) -> None:
    """In that folder, which is all that the command sees as its home. Raises `CalledProcessError`."""
    (folder / "home").mkdir(exist_ok=True)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HOME": str(folder / "home"), "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
    if os.geteuid() == 0:  # its folder would be /var/lib/crawlscope
        environment["CRAWLSCOPE_DATA_DIR"] = str(folder / "data")
    subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MAX_SECONDS,
        check=True,
    )


if __name__ == "__main__":
    main()
