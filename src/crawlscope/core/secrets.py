"""The secrets of an installation, made on first start and kept where only their owner reads them."""

import os
import secrets
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import SIGNING_PREFIX, Settings, is_header_safe, is_signing_secret

SECRET_FILE = "api-secret"  # noqa: S105 - a file's name
TOKEN_FILE = "local-token"  # noqa: S105 - a file's name
NOTIFY_SECRET_FILE = "notify-secret"  # noqa: S105 - a file's name


def api_secret(settings: Settings) -> str:
    if settings.api_secret is not None:
        return settings.api_secret.get_secret_value()
    return _kept_or_made(settings.data_dir / SECRET_FILE)


def local_token(settings: Settings) -> str:
    """Proves that a caller can read the data folder, as the command line's user can."""
    return _kept_or_made(settings.data_dir / TOKEN_FILE)


def notify_secret(settings: Settings) -> str:
    """What notifications are signed with."""
    if settings.notify_secret is not None:
        return settings.notify_secret.get_secret_value()
    return _kept_or_made(settings.data_dir / NOTIFY_SECRET_FILE, _signing_secret, is_signing_secret)


def _signing_secret() -> str:
    return SIGNING_PREFIX + b64encode(secrets.token_bytes(32)).decode()


def _token() -> str:
    return secrets.token_urlsafe(32)


def _kept_or_made(
    path: Path, make: Callable[[], str] = _token, is_usable: Callable[[str], bool] = is_header_safe
) -> str:
    """Raises `SettingsError` when the kept one cannot be used, or the data folder not be written."""
    try:
        secret = _kept(path) or _made(path, make())
    except UnicodeDecodeError:
        secret = ""
    except OSError as error:
        raise SettingsError(
            f"cannot keep a secret in {path}: {error.strerror}; "
            "set CRAWLSCOPE_DATA_DIR to a folder that this user can write"
        ) from error
    if not is_usable(secret):
        raise SettingsError(f"{path} holds no usable secret: remove it, the next start makes another")
    return secret


def _kept(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def _made(path: Path, secret: str) -> str:
    """Of several processes that start at once all end with the same secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(secret)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()
