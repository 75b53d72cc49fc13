"""The secrets of an installation, made on first start and kept where only their owner reads them."""

import os
import secrets
from pathlib import Path

from crawlscope.errors import SettingsError
from crawlscope.settings import Settings

SECRET_FILE = "api-secret"  # noqa: S105 - a file's name
TOKEN_FILE = "local-token"  # noqa: S105 - a file's name


def api_secret(settings: Settings) -> str:
    if settings.api_secret is not None:
        return settings.api_secret.get_secret_value()
    return _kept_or_made(settings.data_dir / SECRET_FILE)


def local_token(settings: Settings) -> str:
    """Proves that a caller can read the data folder, as the command line's user can."""
    return _kept_or_made(settings.data_dir / TOKEN_FILE)


def _kept_or_made(path: Path) -> str:
    """Raises `SettingsError` when the data folder cannot be written."""
    try:
        return _kept(path) or _made(path)
    except OSError as error:
        raise SettingsError(
            f"cannot keep a secret in {path}: {error.strerror}; "
            "set CRAWLSCOPE_DATA_DIR to a folder that this user can write"
        ) from error


def _kept(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def _made(path: Path) -> str:
    """Of several processes that start at once all end with the same secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_urlsafe(32))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()
