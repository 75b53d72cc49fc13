"""Checks the installation and every dependency, and names each fault with its remedy."""

import asyncio
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, SecretStr
from rich.table import Table
from rich.text import Text
from sqlalchemy import RowMapping, text

from crawlscope.api.client import ServiceClient
from crawlscope.api.rendering.words import plain
from crawlscope.changes.watches import changedetection_client
from crawlscope.core import service_file
from crawlscope.core.data_dir import explained
from crawlscope.core.errors import (
    CrawlscopeError,
    DatabaseUnavailable,
    FirecrawlUnavailable,
    RerankerUnavailable,
    SettingsError,
)
from crawlscope.core.listening import bound_socket
from crawlscope.core.secrets import NOTIFY_SECRET_FILE, SECRET_FILE, TOKEN_FILE
from crawlscope.core.settings import Settings, is_header_safe, without_credentials
from crawlscope.database import revision, schema
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import sqlalchemy_url
from crawlscope.firecrawl.client import FirecrawlClient
from crawlscope.indexing import documents
from crawlscope.indexing.embedders import open_embedder
from crawlscope.indexing.embedders.models import unread_notice
from crawlscope.indexing.embedders.port import EmbedderIdentity
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.index.port import FIRST_NAME
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.insights import queries
from crawlscope.insights.queries import rows_of
from crawlscope.notifications import outbox
from crawlscope.search.reranker import RerankingServer
from crawlscope.webhooks.refusals import Cause

MIN_PYTHON = (3, 11)
CHECK_SECONDS = 75.0
ANSWER_SECONDS = 10.0
REFUSALS_HOURS = 24
REFUSALS_PASS = timedelta(minutes=15)
"""Refusals that are older do not fail the check if deliveries are accepted again."""
_SIGNING = (
    "set CRAWLSCOPE_FIRECRAWL_WEBHOOK_SECRET to Firecrawl's signing secret (SELF_HOSTED_WEBHOOK_HMAC_SECRET)"
)
_TOKEN = "set CRAWLSCOPE_RECEIVE_TOKEN, and deliver to /api/webhook/firecrawl/ and that token"  # noqa: S105
REFUSALS = {
    Cause.NO_CREDENTIALS: (
        "they carried neither the API secret nor a signature",
        "have the sender send the header X-API-Secret, or give it a URL with CRAWLSCOPE_RECEIVE_TOKEN",
    ),
    Cause.WRONG_SECRET: (
        "they carried another API secret",
        "have the sender send CRAWLSCOPE_API_SECRET, by default the content of {data_dir}/api-secret",
    ),
    Cause.BAD_SIGNATURE: ("their signature was not valid", _SIGNING),
    Cause.NO_SIGNING_SECRET: ("they were signed, and no signing secret is set", _SIGNING),
    Cause.WRONG_TOKEN: ("their URL has another token", _TOKEN),
    Cause.NO_TOKEN: ("their URL has a token, and none is set", _TOKEN),
    Cause.WRONG_PATH: (
        "they came to a path without a webhook endpoint",
        "deliver to /api/webhook/firecrawl, changes to /api/webhook/changedetection",
    ),
    Cause.TOO_LARGE: ("they were larger than {largest:,} bytes", "raise CRAWLSCOPE_MAX_BODY_BYTES"),
    Cause.WRONG_TYPE: ("they were not application/json", "check the sender's configuration"),
    Cause.UNREADABLE: ("they were no valid JSON, or incomplete", "check what the sender sends"),
    Cause.MALFORMED: (
        "their JSON is not an event",
        "the request metrics list them; check what the sender sends",
    ),
    Cause.UNAVAILABLE: (
        "they could not be stored",
        "the log gives the reason; with CRAWLSCOPE_FIRECRAWL_URL set, lost pages are fetched",
    ),
}
"""The reason, and what to do."""
TEST_TEXT = "A flight recorder for crawls."
RERANKER_QUERY = "Which animal says meow?"
RERANKER_TEXTS = ("A cat says meow.", "The train to Vienna leaves at noon.")
"""The answer, and a text on something else."""
PART_WIDTH = 12


class Failed(Exception):
    """The result of a failed check: what is wrong, and what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)


@dataclass(frozen=True)
class Finding:
    part: str
    ok: bool
    words: str


class Examination(BaseModel):
    findings: list[Finding]


Check = Callable[[Settings], Awaitable[str]]
"""Returns the result in words, or nothing if there is nothing to check. Raises `Failed` or
`CrawlscopeError`."""

CHECKS: dict[str, Check] = {}
"""By the name of the part, in the order in which they are made."""


def check_of(part: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[part] = check
        return check

    return register


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yields each finding as soon as it is made; no finding contains a secret."""
    for part in CHECKS:
        finding = await find(part, settings)
        if finding.words:
            yield finding


async def find(part: str, settings: Settings) -> Finding:
    return await found(part, CHECKS[part](settings), settings)


async def found(part: str, check: Awaitable[str], settings: Settings) -> Finding:
    """The finding of a check, which raises `Failed` or `CrawlscopeError`."""
    ok = False
    try:
        words = await asyncio.wait_for(check, CHECK_SECONDS)
        ok = True
    except TimeoutError:
        words = f"no result after {CHECK_SECONDS:.0f} s"
    except (Failed, CrawlscopeError) as error:
        words = str(error)
    except Exception as error:  # noqa: BLE001 - an unexpected error in one check must not prevent the others
        words = f"{type(error).__name__}: {error}"
    return Finding(part, ok, _redacted(" ".join(words.split()), settings))


def render_finding(finding: Finding) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=6, no_wrap=True)
    line.add_column(width=PART_WIDTH, no_wrap=True, style="bold")
    line.add_column(overflow="fold")
    mark = Text("ok", style="green") if finding.ok else Text("failed", style="bold red")
    line.add_row(mark, finding.part, Text(plain(finding.words)))
    return line


@check_of("python")
async def check_python(_settings: Settings) -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        raise Failed(f"Python {version} is too old", "use 3.11 or newer")
    return f"{version} ({sys.executable})"


@check_of("data folder")
async def check_data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    if free < settings.min_free_disk_bytes:
        raise Failed(
            f"only {_size(free)} are free for {folder}", "free some; deliveries are refused until then"
        )
    return f"{folder}, {_size(free)} free"


@check_of("secrets")
async def check_secrets(settings: Settings) -> str:
    needed = [SECRET_FILE, TOKEN_FILE] if settings.api_secret is None else [TOKEN_FILE]
    files = [settings.data_dir / name for name in (*needed, NOTIFY_SECRET_FILE)]
    kept = [file for file in files if file.exists()]
    for file in kept:
        try:
            content, mode = file.read_text(errors="replace").strip(), stat.S_IMODE(file.stat().st_mode)
        except OSError as error:
            remedy = "run as the user that owns it"
            raise Failed(f"{file} cannot be read ({error.strerror})", remedy) from error
        if not is_header_safe(content):
            raise Failed(f"{file} contains no usable secret", "remove it, the next start makes another")
        if mode & 0o077:
            raise Failed(f"other users can read {file}", f"chmod 600 {file}")
    source = "the API secret comes from the environment" if settings.api_secret else "kept in the data folder"
    complete = {file.name for file in kept}.issuperset(needed)
    return source if complete else f"{source}, made on first start"


@check_of("service")
async def check_service(settings: Settings) -> str:
    service = service_file.read(settings.data_dir)
    if service is None:
        return "none runs for this data folder; commands start one for as long as they need it"
    async with httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
        try:
            answer = await http.get(f"{service.url}/readyz")
        except httpx2.TransportError as error:
            raise Failed(
                f"process {service.pid} does not answer at {service.url} ({_why(error)})", "restart it"
            ) from error
    if answer.is_error:
        raise Failed(f"{service.url} is not ready: {answer.json().get('detail')}")
    return f"runs at {service.url} (process {service.pid})"


@check_of("database")
async def check_database(settings: Settings) -> str:
    async with connected_database(settings) as database:
        async with database.transaction() as connection:
            version = int(await connection.scalar(text("SHOW server_version_num")) or 0) // 10_000
        if version < schema.MIN_SERVER_VERSION:
            raise Failed(f"PostgreSQL {version} is too old", f"use {schema.MIN_SERVER_VERSION} or newer")
        found = await revision.current_revision(database)
        tables = f"tables at revision {found}"
        if not await revision.serves_this_version(database):
            tables = _unusable_tables(found, settings)
    kind = "embedded" if settings.embedded_database else "your own"
    return f"{kind} PostgreSQL {version} works, {tables}"


def _unusable_tables(found: str | None, settings: Settings) -> str:
    """Missing or old tables are no failure if the next start upgrades them."""
    needed = revision.NEWEST
    if found is not None and not schema.is_known(found):
        raise Failed(
            f"its tables are at revision {found}, which is newer than this program", "update Crawlscope"
        )
    if settings.embedded_database:
        return f"tables at revision {found or 'none'}, upgraded to {needed} on the next start"
    raise Failed(f"its tables are at revision {found or 'none'}, not {needed}", "run `crawlscope db upgrade`")


@check_of("index")
async def check_index(settings: Settings) -> str:
    if service_file.read(settings.data_dir) is not None:
        async with aclosing(ServiceClient.of(settings)) as client:
            index = (await client.health())["parts"]["index"]
        if index["state"] != "ok":
            raise Failed(str(index["detail"]))
        owner = "on the Qdrant server" if settings.qdrant_url else "served by the index process"
        return f"{owner}, {index['detail']}"
    if settings.qdrant_url is not None:
        return await _check_qdrant_server(settings.qdrant_url, settings.qdrant_api_key)
    folders = [each for each in settings.data_dir.glob(f"{FIRST_NAME}*") if each.is_dir()]
    with explained(settings.data_dir):
        for folder in folders:
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise Failed(f"{folder} cannot be written", "run as the user that owns it")
    found = "exists" if folders else "empty until the first page"
    return f"embedded, {found}; socket {socket_path_for(settings.data_dir)}"


async def _check_qdrant_server(url: str, key: SecretStr | None) -> str:
    from qdrant_client import AsyncQdrantClient

    address = without_credentials(url)
    client = AsyncQdrantClient(
        url=url,
        api_key=key.get_secret_value() if key else None,
        timeout=int(ANSWER_SECONDS),
        check_compatibility=False,  # it would complain on stderr, besides the finding
    )
    try:
        collections = await client.get_collections()
    except Exception as error:
        raise Failed(
            f"the Qdrant server at {address} does not answer ({_why(error)})",
            "check CRAWLSCOPE_QDRANT_URL and CRAWLSCOPE_QDRANT_API_KEY",
        ) from error
    finally:
        await client.close()
    return f"the Qdrant server at {address} answers, {len(collections.collections)} collections"


@check_of("embedder")
async def check_embedder(settings: Settings) -> str:
    async with aclosing(await open_embedder(settings)) as embedder:
        await embedder.embed([TEST_TEXT])  # the first call warms up
        began = time.perf_counter()
        vectors = await embedder.embed([TEST_TEXT])
        took_ms = (time.perf_counter() - began) * 1000
    notice = await require_embedder_of_index(embedder.identity, settings)
    model = embedder.identity.model
    words = f"{settings.embedder} ({model}), {vectors.shape[1]} dimensions, {took_ms:.1f} ms for a short text"
    return f"{words}. {notice}" if notice else words


async def require_embedder_of_index(identity: EmbedderIdentity, settings: Settings) -> str | None:
    """Raises `Failed` if the index was built with another embedder, which searches then need.

    Returns the notice that the model does not read many of its pages.
    """
    with suppress(DatabaseUnavailable, SettingsError):  # the database has a finding of its own
        async with connected_database(settings) as database:
            if not await revision.serves_this_version(database):
                return None
            async with database.transaction() as connection:
                serving = (await generations.live(connection)).serving
                if not serving or not (await documents.count(connection, serving.id)).chunks:
                    return None
                languages = await documents.count_languages(connection, serving.id)
        if serving.recipe.identity != identity:
            raise Failed(
                f"works, but the index was built with {serving.recipe.identity.description}, not with "
                f"{identity.description}",
                "run `crawlscope reindex`, or configure the former embedder",
            )
        return unread_notice(identity.model, languages)
    return None


@check_of("reranker")
async def check_reranker(settings: Settings) -> str:
    """Nothing if none is configured."""
    server = RerankingServer.of(settings)
    if server is None:
        return ""
    async with aclosing(server):
        began = time.perf_counter()
        try:
            right, wrong = await server.scores(RERANKER_QUERY, RERANKER_TEXTS)
        except RerankerUnavailable as error:
            raise Failed(
                str(error).rstrip("."), "check CRAWLSCOPE_RERANKER_URL, its model and its API key"
            ) from error
        took_ms = (time.perf_counter() - began) * 1000
    if right <= wrong:
        raise Failed(
            f"answers, but finds “{RERANKER_TEXTS[1]}” a better answer to “{RERANKER_QUERY}” than "
            f"“{RERANKER_TEXTS[0]}” ({wrong:.3g} and {right:.3g})",
            "check that the model of CRAWLSCOPE_RERANKER_URL is one for reranking",
        )
    return (
        f"{without_credentials(settings.reranker_url or '')} orders texts rightly, {took_ms:.0f} ms for two"
    )


@check_of("port")
async def check_port(settings: Settings) -> str:
    service = service_file.read(settings.data_dir)
    if service is not None and urlsplit(service.url).port == settings.port:
        return f"{settings.port} is held by the running service"
    try:
        bound_socket(settings.host, settings.port).close()
    except OSError as error:
        raise Failed(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror})",
            "stop what uses it, or set CRAWLSCOPE_PORT",
        ) from error
    return f"{settings.host}:{settings.port} is free"


@check_of("deliveries")
async def check_deliveries(settings: Settings) -> str:
    """Nothing if none was refused. Refusals are no failure if deliveries have been accepted again since."""
    until = datetime.now(UTC)
    since = until - timedelta(hours=REFUSALS_HOURS)
    try:
        async with connected_database(settings) as database:
            if not await revision.serves_this_version(database):
                return ""
            async with database.transaction() as connection:
                refused = await rows_of(connection, queries.refused_deliveries(since, until))
                accepted_at = await connection.scalar(queries.last_delivery_at())
    except (DatabaseUnavailable, SettingsError):  # the database has a finding of its own
        return ""
    if not refused:
        return ""
    words = "; ".join(_refusal_words(row, settings) for row in refused)
    last_at = refused[0]["last_at"]
    if accepted_at and accepted_at > last_at and until - last_at > REFUSALS_PASS:
        return f"the last one was accepted at {accepted_at:%H:%M} UTC. Before that {words}"
    raise Failed(words)


@check_of("firecrawl")
async def check_firecrawl(settings: Settings) -> str:
    if settings.firecrawl_url is None:
        return ""
    key = settings.firecrawl_api_key.get_secret_value() if settings.firecrawl_api_key else None
    async with FirecrawlClient(settings.firecrawl_url, key, patience_seconds=ANSWER_SECONDS) as client:
        try:
            running = await client.active()
        except FirecrawlUnavailable as error:
            raise Failed(
                str(error).rstrip("."), "check CRAWLSCOPE_FIRECRAWL_URL, or look at its logs"
            ) from error
        words = f"{client.name} {'takes the key' if key else 'answers'}"
    return words if running is None else f"{words}, {running} crawls run there"


@check_of("watches")
async def check_watches(settings: Settings) -> str:
    if settings.changedetection_url is None:
        return ""
    async with changedetection_client(settings) as client:
        urls = await client.watched_urls()
        return f"{client.name} takes the key and watches {len(urls)} pages"


@check_of("notifying")
async def check_notifications(settings: Settings) -> str:
    if settings.notify_url is None:
        return ""
    async with connected_database(settings) as database:
        if not await revision.serves_this_version(database):
            return "none yet: the next start creates the tables"
        failing = await database.run(outbox.failing)
    if failing:
        raise Failed(
            f"the last {failing.count} failed, {failing.at:%Y-%m-%d %H:%M} UTC: {failing.error}",
            "check CRAWLSCOPE_NOTIFY_URL and its receiver",
        )
    return "none failed since the last one that was delivered"


def _refusal_words(row: RowMapping, settings: Settings) -> str:
    count, last_at, senders = row["count"], row["last_at"], row["senders"]
    were = "delivery was" if count == 1 else "deliveries were"
    because, remedy = REFUSALS.get(row["cause"], (row["cause"], "the log has more details"))
    known = {"data_dir": settings.data_dir, "largest": settings.max_body_bytes}
    from_where = f" from {', '.join(senders)}" if senders else ""
    return (
        f"{count:,} {were} refused in the last {REFUSALS_HOURS} hours because {because.format(**known)} "
        f"(last at {last_at:%Y-%m-%d %H:%M} UTC{from_where}): "
        f"{remedy.format(**known)}"
    )


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _size(number: int) -> str:
    return f"{number / 1024**3:.1f} GiB" if number >= 1024**3 else f"{number / 1024**2:.0f} MiB"


def _redacted(words: str, settings: Settings) -> str:
    """A last safeguard, because errors of other programs may quote their input."""
    given = [value.get_secret_value() for value in vars(settings).values() if isinstance(value, SecretStr)]
    for url in filter(None, (settings.database_url, settings.database_direct_url)):
        with suppress(SettingsError):
            given.append(sqlalchemy_url(url.get_secret_value()).password or "")
    for secret in filter(None, given):
        words = words.replace(secret, "***")
    return words
