"""What can be set: environment variables and `.env`, all with the prefix `CRAWLSCOPE_`."""

import os
import sys
from base64 import b64decode
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from crawlscope.core.errors import SettingsError

ENV_PREFIX = "CRAWLSCOPE_"
SETTINGS_FILE = ".env"
OWN_WORDS = "Value error, "
"""What pydantic puts before the words of a validator here."""
SIGNING_PREFIX = "whsec_"


def default_data_dir() -> Path:
    """The platform's folder for user data; for root a system folder that its database user can reach."""
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/var/lib/crawlscope")
    return Path(platformdirs.user_data_dir("crawlscope"))


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=SETTINGS_FILE,
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
        frozen=True,
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    """Where the embedded stack keeps its data: database, index, secret, logs."""
    host: str = "127.0.0.1"
    """The address the HTTP service listens on."""
    port: int = Field(default=8108, ge=0, le=65535)
    """The port the HTTP service listens on; 0 takes a free one."""

    database_url: SecretStr | None = None
    """`postgresql://…` of your own server; without it, an embedded PostgreSQL under the data folder."""
    qdrant_url: str | None = None
    """Your own Qdrant server or cluster; without it, an embedded index under the data folder."""
    qdrant_api_key: SecretStr | None = None
    """The key of your Qdrant server."""

    embedder: Literal["local", "tei", "openai", "fastembed"] = "local"
    """Who turns text into vectors: `local` needs no service; `tei` and `openai` are servers."""
    embedder_url: str | None = None
    """The address of the embedding server (`tei`, `openai`)."""
    embedder_model: str | None = None
    """The model to ask the embedding server for."""
    embedder_dimensions: int | None = Field(default=None, ge=1, le=65_535)
    """How long the vectors shall be (`openai`, models that can shorten them); without it, the model's own."""
    embedder_api_key: SecretStr | None = None
    """The key of the embedding server."""
    chunk_tokens: int = Field(default=200, ge=16, le=8192)
    """The most tokens of one chunk, counted by the embedder's own tokenizer."""

    api_secret: SecretStr | None = None
    """The secret that clients send; without it, one is made on first start and kept in the data folder."""
    receive_token: SecretStr | None = None
    """Lets deliveries in by URL, for senders that can neither sign nor send headers."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """The largest body of a request, such as a delivery, in bytes; a larger one gets 413."""
    keep_deliveries_days: int = Field(default=30, ge=1, le=36_500)
    """How long the bodies of deliveries are kept, so that they can be replayed."""
    min_free_disk_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Deliveries are refused (503) while less than this is free where the embedded database lives."""

    firecrawl_url: str | None = None
    """The Firecrawl to start crawls on and to reconcile with."""
    firecrawl_api_key: SecretStr | None = None
    """The key of that Firecrawl."""
    firecrawl_webhook_secret: SecretStr | None = None
    """The HMAC secret of Firecrawl's webhook signatures."""
    public_url: str | None = None
    """The address at which others reach this service; without it, `http://HOST:PORT`."""
    allow_private_targets: bool = False
    """Whether crawls asked for over HTTP or MCP may reach private addresses."""
    reconcile_after_seconds: int = Field(default=300, ge=1)
    """How long a crawl may be quiet before it is checked with Firecrawl."""

    changedetection_url: str | None = None
    """The changedetection.io that shall watch pages of crawls."""
    changedetection_api_key: SecretStr | None = None
    """The key of its API."""

    notify_url: SecretStr | None = None
    """Where crawls that are searchable, failed, stalled or slow are told of."""
    notify_secret: SecretStr | None = None
    """What notifications are signed with (`whsec_…`); without it, one is made and kept in the data folder."""

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    """How many indexing worker processes `up` starts."""
    max_attempts: int = Field(default=5, ge=1, le=100)
    """How often a page that fails in an unexpected way is tried before it is set aside."""
    page_timeout_seconds: float = Field(default=1800.0, gt=0, le=86400)
    """How long a worker may work on one page before that try has failed."""
    worker_memory_bytes: int = Field(default=4 * 1024**3, ge=0)
    """An indexing worker that takes more ends, and another is started; 0: no limit."""

    crawl_concurrency: int = Field(default=10, ge=1, le=256)
    """How many pages the built-in crawler fetches at once."""
    crawl_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """How long the built-in crawler waits for one page."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], NoDecode] = "INFO"
    """The least severe log line that is written."""

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if isinstance(value, str) and not is_text(value):
            raise ValueError("must be text in UTF-8")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "qdrant_url", "embedder_url", "firecrawl_url", "public_url", "changedetection_url", "notify_url"
    )
    @classmethod
    def _web_address(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        address = value.get_secret_value() if isinstance(value, SecretStr) else value
        if address is not None and not is_web_address(address):
            raise ValueError("must be a full address such as https://example.com, of printable characters")
        return value

    @field_validator("api_secret")
    @classmethod
    def _header_safe(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_header_safe(value.get_secret_value()):
            raise ValueError("must be ASCII without blanks and line breaks: it is sent in a header")
        return value

    @field_validator("notify_secret")
    @classmethod
    def _signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_signing_secret(value.get_secret_value()):
            raise ValueError("must be whsec_ followed by 24 to 64 bytes in base64")
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @cached_property
    def embedded_database(self) -> bool:
        return self.database_url is None

    @cached_property
    def embedded_index(self) -> bool:
        return self.qdrant_url is None


def is_text(value: str) -> bool:
    """Without lone surrogates, which stand for bytes that were no UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_header_safe(value: str) -> bool:
    """Whether an HTTP header can carry it as one word."""
    return value.isascii() and value.isprintable() and value != "" and " " not in value


def is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return named and value.isprintable()


def is_signing_secret(value: str) -> bool:
    """In the form of Standard Webhooks."""
    try:
        key = b64decode(value.removeprefix(SIGNING_PREFIX), validate=True)
    except ValueError:
        return False
    return value.startswith(SIGNING_PREFIX) and 24 <= len(key) <= 64


def load_settings(**overrides: object) -> Settings:
    """Reads the environment; raises `SettingsError` that names each variable that cannot work."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except UnicodeDecodeError:
        raise SettingsError(f"the file {SETTINGS_FILE} must be text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"the file {SETTINGS_FILE} cannot be read ({error.strerror})") from None


def _explain(error: ValidationError) -> str:
    """One line without the offending values: one of them may be a secret."""
    return "; ".join(
        f"{ENV_PREFIX}{'.'.join(str(part) for part in issue['loc']).upper()}: "
        f"{issue['msg'].removeprefix(OWN_WORDS)}"
        for issue in error.errors(include_input=False, include_url=False)
    )
