"""The data folder: the folders of the index in it, and errors of one that cannot be used."""

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


def shard_folders(data_dir: Path) -> list[Path]:
    """The folder of each shard of the embedded index; the first is the data folder itself."""
    return [data_dir, *sorted(data_dir.glob("shard-*"))]


def make_shards(data_dir: Path, number: int) -> None:
    """Makes the folders of a data folder that has no index yet. Later their number does not change, because
    it decides where a document is.
    """
    if not any(data_dir.glob("index*/")) and shard_folders(data_dir) == [data_dir]:
        with explained(data_dir):
            for shard in range(2, number + 1):
                (data_dir / f"shard-{shard:02}").mkdir(mode=0o700)
