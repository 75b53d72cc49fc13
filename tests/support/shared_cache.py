"""What services keep in the `cache` of their data folders, made once for all those of a test process."""

import atexit
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path


def share_cache(data_dir: Path) -> None:
    """Saves each a second, and 70 MB."""
    data_dir.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "cache").exists():
        (data_dir / "cache").symlink_to(_folder())


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="crawlscope-tests-cache-"))
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder
