"""TLS by a real proxy, with the configurations of `deploy/proxy/`: skipped where the program is missing."""

import asyncio
import datetime
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crawlscope.core.settings import Settings
from tests.api.http.conftest import NOWHERE, SECRET
from tests.support.fakes.loopback import free_port
from tests.support.serving import serving

FOLDER = Path(__file__).parents[2] / "deploy/proxy"
NAME = "crawlscope.example.com"
AS_HTTP = {"X-API-Secret": SECRET}
MCP = {"Accept": "application/json, text/event-stream", **AS_HTTP}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-made one for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "crawlscope")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, plain))
    return files


@contextmanager
def nginx(port: int, to: str, certificate: tuple[Path, Path], folder: Path) -> Iterator[None]:
    server = (FOLDER / "nginx.conf").read_text()
    for ours, theirs in (
        ("127.0.0.1:8108", to),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/crawlscope.pem", str(certificate[0])),
        ("/etc/ssl/private/crawlscope.key", str(certificate[1])),
    ):
        assert ours in server
        server = server.replace(ours, theirs)
    paths = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # its workers read the folder of the test
    whole = f"{user}pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n{paths}"
    whole += f"access_log {folder}/access.log;\n{server}\n}}\n"
    file = folder / "nginx.conf"
    with running(["nginx", "-g", "daemon off;", "-c", str(file)], file, whole):
        yield


@contextmanager
def caddy(port: int, to: str, certificate: tuple[Path, Path], folder: Path) -> Iterator[None]:
    site = (FOLDER / "Caddyfile").read_text()
    tls = f"https://127.0.0.1:{port} {{\n\ttls {certificate[0]} {certificate[1]}"
    for ours, theirs in (("127.0.0.1:8108", to), (f"{NAME} {{", tls)):
        assert ours in site
        site = site.replace(ours, theirs)
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    file = folder / "Caddyfile"
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
    with running(command, file, options + site, {"HOME": str(folder), "PATH": "/usr/bin:/bin"}):
        yield


@contextmanager
def running(
    command: list[str], file: Path, content: str, environment: dict[str, str] | None = None
) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    file.write_text(content)
    with (file.parent / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield
        assert process.poll() is None, (file.parent / "output").read_text()
    finally:
        process.kill()  # in order, it would wait for the end of the live feed
        process.wait(30)


@asynccontextmanager
async def service(database_url: str, folder: Path, *trusted: str) -> AsyncIterator[str]:
    settings = Settings(
        _env_file=None,
        data_dir=folder,
        api_secret=SECRET,
        database_url=database_url,
        port=0,
        embedder="tei",
        embedder_url=NOWHERE,
        trusted_proxies=[ip_network(each) for each in trusted],
    )
    async with serving(settings) as running:
        yield running.url.removeprefix("http://")


@pytest.fixture(params=[nginx, caddy], ids=lambda proxy: proxy.__name__)
async def http(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, certificate: tuple[Path, Path]
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the service behind the proxy."""
    port, trusted = free_port(), ssl.create_default_context(cafile=certificate[0])
    data, work = tmp_path / "data", tmp_path / "proxy"
    data.mkdir()
    work.mkdir()
    async with service(database_url, data, "127.0.0.1") as to:
        with request.param(port, to, certificate, work):
            client = httpx2.AsyncClient(
                base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=30, trust_env=False
            )
            async with client as http:
                await answers(http)
                yield http


async def answers(http: httpx2.AsyncClient) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if (await http.get("/healthz")).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline, "the proxy does not answer"
        await asyncio.sleep(0.05)


async def test_the_service_works_behind_a_proxy_with_tls(http: httpx2.AsyncClient) -> None:
    """One test, because each start of a proxy and a service takes a second."""
    await deliveries_arrive(http)
    await events_are_not_held_back(http)
    await mcp_answers(http)
    await browsers_sign_in(http)
    await nobody_claims_another_address(http)


async def deliveries_arrive(http: httpx2.AsyncClient) -> None:
    page = {"markdown": "x" * 3_000_000, "metadata": {"sourceURL": "https://a.example/"}}
    event = {"type": "crawl.page", "id": "tls", "data": [page]}
    answer = await http.post("/api/webhook/firecrawl", json=event, headers=AS_HTTP)
    assert answer.status_code == 202, answer.text
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert (await http.post("/api/webhook/firecrawl", json=event)).status_code == 401


async def events_are_not_held_back(http: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(20), http.stream("GET", "/api/metrics/events", headers=AS_HTTP) as feed:
        lines = feed.aiter_lines()
        assert feed.headers["content-type"].startswith("text/event-stream")
        await anext(lines)
        started = {"type": "crawl.started", "id": "seen-live"}
        await http.post("/api/webhook/firecrawl", json=started, headers=AS_HTTP)
        async for line in lines:
            if "seen-live" in line:
                return


async def mcp_answers(http: httpx2.AsyncClient) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    answer = await http.post("/mcp", json=request, headers=MCP)
    assert answer.status_code == 200, answer.text
    [line] = [each for each in answer.text.splitlines() if "{" in each]
    assert json.loads(line.removeprefix("data: "))["result"]["tools"]


async def browsers_sign_in(http: httpx2.AsyncClient) -> None:
    form, origin = {"secret": SECRET}, {"Origin": str(http.base_url).rstrip("/")}
    signed = await http.post("/sign-in", data=form, headers=origin)
    assert signed.status_code == 303, signed.text
    cookie = signed.headers["set-cookie"]
    assert all(word in cookie for word in ("; Secure", "HttpOnly", "SameSite=strict")), cookie
    assert (await http.get("/system")).status_code == 200
    http.cookies.clear()


async def nobody_claims_another_address(http: httpx2.AsyncClient) -> None:
    """The eleventh failed attempt is refused, whatever each says of its sender."""
    statuses = []
    for attempt in range(12):
        headers = {"Origin": str(http.base_url).rstrip("/"), "X-Forwarded-For": f"203.0.113.{attempt}"}
        answer = await http.post("/sign-in", data={"secret": "guess"}, headers=headers)
        statuses.append(answer.status_code)
    assert statuses == [401] * 10 + [429] * 2


async def test_without_a_trusted_proxy_nobody_claims_an_address(database_url: str, tmp_path: Path) -> None:
    claimed = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", **AS_HTTP}
    async with (
        service(database_url, tmp_path) as at,
        httpx2.AsyncClient(base_url=f"http://{at}", trust_env=False) as http,
    ):
        signed = await http.post(
            "/sign-in", data={"secret": SECRET}, headers={**claimed, "Origin": str(http.base_url).rstrip("/")}
        )
        assert "; Secure" not in signed.headers["set-cookie"]
        await http.get("/api/stats", headers=claimed)

        async def recorded() -> list[dict[str, str]]:
            return (await http.get("/api/metrics/requests", headers=AS_HTTP)).json()["requests"]

        deadline = time.monotonic() + 20
        while not (found := await recorded()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    assert {each["client_ip"] for each in found} == {"127.0.0.1"}
