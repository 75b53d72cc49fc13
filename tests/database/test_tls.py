"""A server that is reached over TLS: by SQLAlchemy and by the queue's own connections, by the same rules."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import make_url

from crawlscope.core.errors import DatabaseUnavailable, SettingsError
from crawlscope.database.engine import Database
from crawlscope.database.queue import INDEX_PAGE
from crawlscope.processes.worker.queue import worker_queue

TLS_WANTED = (8).to_bytes(4) + (80877103).to_bytes(4)


class Front:
    """A TCP address in front of the test server's socket; speaks TLS where it has a certificate."""

    def __init__(self, database_url: str, certificate: Path | None) -> None:
        self._url = make_url(database_url)
        self._socket = f"{self._url.query['host']}/.s.PGSQL.5432"
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._tls and certificate:
            self._tls.load_cert_chain(certificate)
        self.encrypted = 0
        self.plain = 0

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._url.username}:secret@localhost:{port}/{self._url.database}"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):  # clients that do not like what they see hang up
            await self._connect(reader, writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        if first == TLS_WANTED:
            writer.write(b"S" if self._tls else b"N")
            if self._tls:
                await writer.start_tls(self._tls)
            first = await reader.readexactly(8)
        async with AsyncExitStack() as stack:
            stack.callback(writer.close)
            from_server, to_server = await asyncio.open_unix_connection(self._socket)
            stack.callback(to_server.close)
            if writer.get_extra_info("ssl_object"):
                self.encrypted += 1
            else:
                self.plain += 1
            to_server.write(first)
            pumps = {
                asyncio.create_task(_pump(reader, to_server)),
                asyncio.create_task(_pump(from_server, writer)),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "its own.pem")


def write_certificate(file: Path) -> Path:
    """A key and its own certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
async def with_tls(database_url: str, certificate: Path) -> AsyncIterator[Front]:
    front = Front(database_url, certificate)
    async with await front.listen():
        yield front


@pytest.fixture
async def without_tls(database_url: str) -> AsyncIterator[Front]:
    front = Front(database_url, None)
    async with await front.listen():
        yield front


async def no_jobs(job: object, payload: object) -> None:
    raise AssertionError("there is no job")


async def use(url: str) -> None:
    """As the service does, and as a worker does."""
    database = Database.open(url)
    try:
        await database.ping()
        stopping = asyncio.Event()
        stopping.set()
        async with worker_queue(database, INDEX_PAGE, 2) as queue:
            await queue.work(no_jobs, stopping)
    finally:
        await database.close()


@pytest.mark.parametrize("option", ["sslmode=require", "ssl=require", "sslmode=verify-full&sslrootcert={}"])
async def test_every_connection_is_encrypted_where_the_url_says_so(
    with_tls: Front, certificate: Path, option: str
) -> None:
    await use(f"{with_tls.url}?{option.format(quote(str(certificate)))}")
    assert with_tls.plain == 0
    assert with_tls.encrypted >= 3, "one of the service's, two of the queue's"


async def test_no_connection_is_encrypted_where_the_url_says_so(with_tls: Front) -> None:
    await use(f"{with_tls.url}?sslmode=disable")
    assert with_tls.encrypted == 0


async def test_a_server_without_tls_is_not_spoken_to_where_tls_is_required(without_tls: Front) -> None:
    await use(without_tls.url)
    spoken = without_tls.plain
    with pytest.raises(DatabaseUnavailable, match="rejected SSL upgrade"):
        await use(f"{without_tls.url}?sslmode=require")
    assert without_tls.plain == spoken


async def test_a_mode_that_there_is_not_is_refused(with_tls: Front) -> None:
    database = Database.open(f"{with_tls.url}?sslmode=on")
    for use_it in (database.ping, lambda: database.run(lambda connection: connection.commit())):
        with pytest.raises(SettingsError, match=r"^CRAWLSCOPE_DATABASE_URL: .*sslmode.*verify-full$"):
            await use_it()
    await database.close()


@pytest.mark.parametrize("option", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_certificate_that_is_not_there_is_refused(option: str) -> None:
    with pytest.raises(SettingsError, match=f"^CRAWLSCOPE_DATABASE_URL: {option} must name a file"):
        Database.open(f"postgresql://u:p@localhost/name?sslmode=verify-full&{option}=/none.pem")


async def test_a_certificate_of_somebody_else_is_not_believed(with_tls: Front, tmp_path: Path) -> None:
    other = write_certificate(tmp_path / "other.pem")
    with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
        await use(f"{with_tls.url}?sslmode=verify-full&sslrootcert={other}")
    assert with_tls.encrypted == 0
