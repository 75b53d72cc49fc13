"""Errors of a data folder that cannot be used."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from crawlscope.core.errors import DatabaseUnavailable, SettingsError


@contextlib.contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """Turns an `OSError` into `SettingsError`, or into `DatabaseUnavailable` on a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DatabaseUnavailable(f"no space is left on the disk of {data_dir}: free some") from error
        raise SettingsError(
            f"CRAWLSCOPE_DATA_DIR={data_dir} cannot be used ({error.strerror or error}): "
            "choose a folder on a local disk that you may write to"
        ) from error
