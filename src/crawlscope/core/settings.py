"""The settings: environment variables and `.env`, with the prefix `CRAWLSCOPE_`."""

import json
import os
import sys
from base64 import b64decode
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from crawlscope.core.errors import SettingsError
from crawlscope.core.expectations import Expectation, parse_expectation

IPNetwork = IPv4Network | IPv6Network
ENV_PREFIX = "CRAWLSCOPE_"
SETTINGS_FILE = ".env"
VALIDATOR_PREFIX = "Value error, "
"""Pydantic's prefix of a validator's message."""
SIGNING_PREFIX = "whsec_"
EMBEDDERS_IN_WORKERS = ("local", "fastembed")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def default_data_dir() -> Path:
    """The platform's folder for user data. For root: a system folder that the PostgreSQL user can reach."""
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/var/lib/crawlscope")
    return Path(platformdirs.user_data_dir("crawlscope"))


def default_workers(given: dict[str, Any]) -> int:
    """One for each processor. One for four if the workers embed, on a thread for each processor: a model that
    several processes run on the same processors is slower."""
    processors = os.cpu_count() or 1
    return max(1, processors // 4) if given.get("embedder") in EMBEDDERS_IN_WORKERS else processors


def default_index_processes() -> int:
    """One for four processors, at most four: as many as their workers keep busy."""
    return min(4, max(1, (os.cpu_count() or 1) // 4))


def default_api_processes() -> int:
    """One for eight processors, at most four: as many as their workers keep busy. Only Linux distributes the
    connections of a port."""
    return min(4, -(-(os.cpu_count() or 1) // 8)) if sys.platform == "linux" else 1


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
    """The folder of the embedded stack: database, index, secrets, logs."""
    host: str = "127.0.0.1"
    """The address that the HTTP service listens on."""
    port: int = Field(default=8108, ge=0, le=65535)
    """The port that the HTTP service listens on. 0 selects a free port."""

    database_url: SecretStr | None = None
    """The `postgresql://…` URL of your own server. Default: an embedded PostgreSQL in the data folder."""
    database_direct_url: SecretStr | None = None
    """The URL of the same server without the pooler, if `CRAWLSCOPE_DATABASE_URL` leads to one."""
    qdrant_url: str | None = None
    """The URL of your own Qdrant server or cluster. Default: an embedded index in the data folder."""
    qdrant_api_key: SecretStr | None = None
    """The API key of your Qdrant server."""

    embedder: Literal["local", "tei", "openai", "fastembed"] = "local"
    """The embedder. `local` and `fastembed` run in the workers; `tei` and `openai` are servers."""
    embedder_url: str | None = None
    """The URL of the embedding server (`tei`, `openai`)."""
    embedder_model: str | None = None
    """The name of the embedding model. `local` has `all-MiniLM-L6-v2` (the default) and, for about 100
    languages, `multilingual-e5-small`."""
    embedder_dimensions: int | None = Field(default=None, ge=1, le=65_535)
    """The dimensions to request from an `openai` server. Default: the model's own number."""
    embedder_api_key: SecretStr | None = None
    """The API key of the embedding server."""
    chunk_tokens: int = Field(default=200, ge=16, le=8192)
    """Maximum number of tokens in a chunk, counted by the embedder's tokenizer."""

    reranker_url: str | None = None
    """The URL of a server that scores the first 50 results of a search anew."""
    reranker_model: str | None = None
    """The model of a reranker with the API of Cohere or Jina. Default: Text Embeddings Inference."""
    reranker_api_key: SecretStr | None = None
    """The API key of the reranker."""

    trusted_proxies: Annotated[list[IPNetwork], NoDecode] = Field(default_factory=list)
    """The addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count."""

    api_secret: SecretStr | None = None
    """The secret that clients send. Default: a generated secret in the data folder."""
    receive_token: SecretStr | None = None
    """A token in the webhook URL, for senders that support neither signatures nor headers."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Maximum size of a request body in bytes. Larger requests get 413."""
    keep_deliveries_days: int = Field(default=30, ge=1, le=36_500)
    """Number of days for which delivery bodies are stored and can be replayed."""
    keep_deliveries_bytes: int | None = Field(default=None, ge=0)
    """Maximum total size of the stored delivery bodies in bytes, as compressed. Default: no limit."""
    keep_operations_days: int = Field(default=400, ge=1, le=36_500)
    """Number of days for which measured operations, in whole months, and past outages are stored."""
    keep_operations_bytes: int | None = Field(default=None, ge=0)
    """Maximum size of the measured operations in bytes, in whole months. Default: no limit."""
    keep_requests_days: int = Field(default=90, ge=1, le=36_500)
    """Number of days for which answered HTTP requests are stored, in whole months."""
    keep_requests_bytes: int | None = Field(default=None, ge=0)
    """Maximum size of the answered HTTP requests in bytes, in whole months. Default: no limit."""
    keep_notifications_days: int = Field(default=400, ge=1, le=36_500)
    """Number of days for which notifications are stored."""
    keep_contents_days: int | None = Field(default=None, ge=1, le=36_500)
    """Number of days for which replaced contents of pages are stored. Default: for ever."""
    keep_contents_bytes: int | None = Field(default=None, ge=0)
    """Maximum total size of the replaced contents of pages in bytes. Default: no limit."""
    min_free_disk_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Minimum free disk space of the embedded database in bytes. Below it, deliveries get 503."""

    firecrawl_url: str | None = None
    """The URL of the Firecrawl that runs crawls and is used for reconciliation."""
    firecrawl_api_key: SecretStr | None = None
    """The API key of that Firecrawl."""
    firecrawl_webhook_secret: SecretStr | None = None
    """The HMAC secret of Firecrawl's webhook signatures."""
    public_url: str | None = None
    """The URL at which other services reach this one. Default: `http://HOST:PORT`."""
    allow_private_targets: bool = False
    """Whether crawls requested over HTTP or MCP may reach private addresses."""
    reconcile_after_seconds: int = Field(default=300, ge=1)
    """Seconds without news of a running crawl after which it is compared with Firecrawl."""

    changedetection_url: str | None = None
    """The URL of the changedetection.io that watches pages."""
    changedetection_api_key: SecretStr | None = None
    """The API key of that changedetection.io."""

    notify_url: SecretStr | None = None
    """The URL that receives notifications of searchable, failed, stalled and slow crawls."""
    notify_secret: SecretStr | None = None
    """The signing secret of notifications (`whsec_…`). Default: a generated secret in the data folder."""
    expectations: Annotated[dict[str, list[str]], NoDecode] = Field(default_factory=dict)
    """Expectations of the crawls of each site: `{"URL": ["pages >= 90 % of the mean of the last 10"]}`."""

    workers: int = Field(default_factory=default_workers, ge=1, le=256)
    """Number of indexing worker processes that `up` starts."""
    api_processes: int = Field(default_factory=default_api_processes, ge=1, le=64)
    """Number of API processes that `up` and `serve` start. They listen on the same port."""
    index_processes: int = Field(default_factory=default_index_processes, ge=1, le=64)
    """Number of processes of the embedded index, each with a part of it. Applies to a new data folder."""
    max_attempts: int = Field(default=5, ge=1, le=100)
    """Maximum number of attempts for a page that fails with an unexpected error."""
    page_timeout_seconds: float = Field(default=1800.0, gt=0, le=86400)
    """Time limit for one attempt at a page, in seconds."""
    worker_memory_bytes: int = Field(default=4 * 1024**3, ge=0)
    """Memory limit of an indexing worker in bytes. Above it, the worker is replaced. 0: no limit."""

    crawl_concurrency: int = Field(default=10, ge=1, le=256)
    """Number of pages that the built-in crawler fetches concurrently."""
    crawl_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """Time limit of the built-in crawler for one page, in seconds."""

    otlp_endpoint: str | None = Field(
        default_factory=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None, validate_default=True
    )
    """The base URL of the OpenTelemetry receiver of traces and metrics (OTLP over HTTP). Default: the
    standard `OTEL_EXPORTER_OTLP_ENDPOINT`, otherwise none."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], NoDecode] = "INFO"
    """Minimum severity of log lines."""

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if isinstance(value, str) and not is_text(value):
            raise ValueError("must be text in UTF-8")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        given = [each.strip() for each in value.split(",")] if isinstance(value, str) else value
        try:
            return [ip_network(each) for each in given] if isinstance(given, list) else given
        except ValueError:
            raise ValueError("must be IP addresses or networks, such as 127.0.0.1,10.0.0.0/8") from None

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "qdrant_url",
        "embedder_url",
        "reranker_url",
        "firecrawl_url",
        "public_url",
        "changedetection_url",
        "notify_url",
        "otlp_endpoint",
    )
    @classmethod
    def _web_address(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        address = value.get_secret_value() if isinstance(value, SecretStr) else value
        if address is not None and not is_web_address(address):
            raise ValueError("must be a full URL such as https://example.com, of printable characters")
        return value

    @field_validator("api_secret")
    @classmethod
    def _header_safe(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_header_safe(value.get_secret_value()):
            raise ValueError("must be ASCII without spaces and line breaks, because it is sent in a header")
        return value

    @field_validator("notify_secret")
    @classmethod
    def _signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_signing_secret(value.get_secret_value()):
            raise ValueError("must be whsec_ followed by 24 to 64 bytes in base64")
        return value

    @field_validator("expectations", mode="before")
    @classmethod
    def _json_object(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("must be a JSON object of URLs and lists of expectations") from None

    @field_validator("expectations")
    @classmethod
    def _readable(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for each in chain.from_iterable(value.values()):
            parse_expectation(each)
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @cached_property
    def site_expectations(self) -> dict[str, list[Expectation]]:
        return {url: list(map(parse_expectation, texts)) for url, texts in self.expectations.items()}

    @cached_property
    def embedded_database(self) -> bool:
        return self.database_url is None

    @cached_property
    def embedded_index(self) -> bool:
        return self.qdrant_url is None


def is_text(value: str) -> bool:
    """Whether the string has no lone surrogates. They stand for bytes that are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_header_safe(value: str) -> bool:
    """Whether the string can be sent as one word in an HTTP header."""
    return value.isascii() and value.isprintable() and value != "" and " " not in value


def without_credentials(url: str) -> str:
    """The URL without user name, password, query, fragment and closing slash."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")


def is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return named and value.isprintable()


def keeps_secrets(url: str) -> bool:
    """Whether nobody else can read what is sent there."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def is_signing_secret(value: str) -> bool:
    """Whether the string is a signing secret of Standard Webhooks."""
    try:
        key = b64decode(value.removeprefix(SIGNING_PREFIX), validate=True)
    except ValueError:
        return False
    return value.startswith(SIGNING_PREFIX) and 24 <= len(key) <= 64


def load_settings(**overrides: object) -> Settings:
    """Reads the environment. Raises `SettingsError`, which names each invalid variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except UnicodeDecodeError:
        raise SettingsError(f"the file {SETTINGS_FILE} must be text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"the file {SETTINGS_FILE} cannot be read ({error.strerror})") from None


def _explain(error: ValidationError) -> str:
    """One line without the invalid values, because a value may be a secret."""
    return "; ".join(
        f"{ENV_PREFIX}{'.'.join(str(part) for part in issue['loc']).upper()}: "
        f"{issue['msg'].removeprefix(VALIDATOR_PREFIX)}"
        for issue in error.errors(include_input=False, include_url=False)
    )
