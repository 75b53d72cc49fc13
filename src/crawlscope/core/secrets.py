"""The secrets of an installation, generated on first start and readable by their owner alone."""

import hmac
import os
import secrets
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from crawlscope.core.errors import SettingsError
from crawlscope.core.settings import SIGNING_PREFIX, Settings, is_header_safe, is_signing_secret

SECRET_FILE = "api-secret"  # noqa: S105 - a file's name
TOKEN_FILE = "local-token"  # noqa: S105 - a file's name
SIGN_IN_FILE = "sign-in-token"
SIGN_IN_SECONDS = 3_600
"""How long a sign-in token is valid."""
NOTIFY_SECRET_FILE = "notify-secret"  # noqa: S105 - a file's name


def api_secret(settings: Settings) -> str:
    if settings.api_secret is not None:
        return settings.api_secret.get_secret_value()
    return _stored(settings.data_dir / SECRET_FILE, secrets.token_urlsafe(32))


def local_token(settings: Settings) -> str:
    """Proves that a caller can read the data folder, as the command line's user can."""
    return _stored(settings.data_dir / TOKEN_FILE, secrets.token_urlsafe(32))


def notify_secret(settings: Settings) -> str:
    """The signing secret of notifications."""
    if settings.notify_secret is not None:
        return settings.notify_secret.get_secret_value()
    generated = SIGNING_PREFIX + b64encode(secrets.token_bytes(32)).decode()
    return _stored(settings.data_dir / NOTIFY_SECRET_FILE, generated, is_signing_secret)


def new_sign_in_token(data_dir: Path) -> str:
    """A token that signs a browser in once; earlier ones are no longer valid."""
    token, path = secrets.token_urlsafe(24), data_dir / SIGN_IN_FILE
    path.unlink(missing_ok=True)
    return _store(path, token)


def use_sign_in_token(data_dir: Path, token: str) -> bool:
    """Whether the token is valid; it is not from then on. If several callers use it at once, one succeeds."""
    path = data_dir / SIGN_IN_FILE
    with suppress(OSError, UnicodeDecodeError):
        if time.time() - path.stat().st_mtime > SIGN_IN_SECONDS:
            return False
        if hmac.compare_digest(path.read_text().strip().encode(), token.encode("utf-8", "replace")):
            path.unlink()
            return True
    return False


def _stored(path: Path, generated: str, is_usable: Callable[[str], bool] = is_header_safe) -> str:
    """The secret in the file, which gets the `generated` one on first use.

    Raises `SettingsError` when the stored one cannot be used, or the data folder cannot be written.
    """
    try:
        secret = ""
        with suppress(FileNotFoundError):
            secret = path.read_text().strip()
        secret = secret or _store(path, generated)
    except UnicodeDecodeError:
        secret = ""
    except OSError as error:
        raise SettingsError(
            f"cannot store a secret in {path}: {error.strerror}; "
            "set CRAWLSCOPE_DATA_DIR to a folder that this user can write"
        ) from error
    if not is_usable(secret):
        raise SettingsError(f"{path} holds no usable secret: remove it, the next start makes another")
    return secret


def _store(path: Path, secret: str) -> str:
    """Processes that start at the same time all end with the same secret."""
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
