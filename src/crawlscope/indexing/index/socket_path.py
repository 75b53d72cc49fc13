"""Where the processes of one data folder meet: the path of the index's socket."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from crawlscope.core.errors import SettingsError

LONGEST_SOCKET_PATH = 107
"""Bytes; the kernel's own limit."""


def socket_path_for(data_dir: Path) -> Path:
    """In the data folder, or where that path is too long, in a private folder for temporary files.

    Makes that folder when it is needed; raises `SettingsError` where it belongs to somebody else.
    """
    direct = data_dir.absolute() / "index.sock"
    if _fits(direct):
        return direct
    name = hashlib.sha256(os.fsencode(direct)).hexdigest()[:16]
    fallback = _private_folder(Path(tempfile.gettempdir()) / f"crawlscope-{os.geteuid()}-{name}")
    if not _fits(fallback / direct.name):
        raise SettingsError(f"the path of the data folder is too long for a socket: {data_dir}")
    return fallback / direct.name


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SettingsError(f"{path} belongs to somebody else or is open to others: remove it")
    return path
