"""The path of the socket over which the processes of one data folder share the index."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from crawlscope.core.errors import SettingsError

MAX_SOCKET_PATH_BYTES = 107
"""The kernel's limit."""


def socket_path_for(data_dir: Path) -> Path:
    """In the data folder, or in a private temporary folder if that path is too long.

    Makes the temporary folder; raises `SettingsError` if it belongs to another user.
    """
    direct = data_dir.absolute() / "index.sock"
    if _fits(direct):
        return direct
    name = hashlib.sha256(os.fsencode(direct)).hexdigest()[:16]
    fallback = Path(tempfile.gettempdir()) / f"crawlscope-{os.geteuid()}-{name}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    found = fallback.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SettingsError(f"{fallback} belongs to somebody else or is open to others: remove it")
    if not _fits(fallback / direct.name):
        raise SettingsError(f"the path of the data folder is too long for a socket: {data_dir}")
    return fallback / direct.name


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
