"""Every parser of foreign input, and inputs for it. It answers with a result or an error of its own."""

import io
import tempfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from crawlscope.changes.changedetection_client import ChangedetectionClient
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import Settings
from crawlscope.crawler.fetch import FetchedPage, FetchFailed, PageClient
from crawlscope.crawler.links import normalise
from crawlscope.crawler.reading.charset import decode
from crawlscope.crawler.reading.page import read_page
from crawlscope.crawler.reading.xml_pages import listing_of
from crawlscope.crawler.robots import RobotsRules
from crawlscope.database.backup import DESCRIPTION, DUMP, _description, _opened
from crawlscope.firecrawl.client import FirecrawlClient
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.embedders.common import load_minilm_tokenizer
from crawlscope.indexing.embedders.http import BatchTooLarge, Dialect, EmbeddingServer, request_vectors
from crawlscope.indexing.embedders.openai import OpenAIDialect
from crawlscope.indexing.embedders.tei import TeiDialect
from crawlscope.indexing.language import language_of
from crawlscope.indexing.passages import passages
from crawlscope.indexing.phrase import Phrase
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.processes.parts import service_parts
from crawlscope.search.query import ParsedQuery
from crawlscope.search.reranker import RerankingServer
from tests.api.http.conftest import NOWHERE, SECRET, TOKEN, Service
from tests.fuzz.answering import answering, response
from tests.fuzz.mutations import (
    ODD_TEXTS,
    bomb,
    changed_bytes,
    changed_text,
    changed_value,
    dumped,
    nested,
    odd_value,
)
from tests.support.recordings import RECORDINGS, read_deliveries, read_recorded

Try = Callable[[Random], Awaitable[None]]
"""Makes one input and gives it to the parser. Raises for a wrong outcome."""
Target = Callable[[str], AbstractAsyncContextManager[Try]]
"""`database_url` is that of a database with all tables."""

HTML = (
    rb"""
<table><tr><td>|<ul><li>|<div>|<b><i>|<pre><code>|<blockquote>|<svg><math>|<!--|<![CDATA[|<script>|<style>
<template>|<select><option>|<a href='|&#0;|&#x110000;|&NotAnEntity;|</p>|</table>|<base href=//x>|<h1>|<q>
<meta charset=x>|<math><mfrac>|<ruby><rt>|<img alt='|<iframe src=>|<frameset>|<plaintext>|<dl><dt>
<meta http-equiv=refresh content='0;url=|<link rel=canonical href=|<td rowspan=99999999>
<td colspan=99999999>|<ol start=-9999999999>|<details><summary>
""".strip()
    .replace(b"\n", b"|")
    .split(b"|")
)
XML = (
    rb"""
<!DOCTYPE a [<!ENTITY x 'xx'>]>|<!ENTITY a '&b;&b;&b;'>|&a;|<url><loc>|<sitemap><loc>|<sitemapindex>|<guid>
<![CDATA[|]]>|<?xml version='1.0' encoding='x'?>|<!ENTITY e SYSTEM 'file:///etc/passwd'>|&e;
<rss><channel><item><link>|<feed><entry><link href='|http://a.example/|<a:b xmlns:a='
""".strip()
    .replace(b"\n", b"|")
    .split(b"|")
)
MARKDOWN = [
    *"# !> !- !1. !| a !|---!```!~~~![a](!\\!<!--!<div>!`!**!_!$$!&amp;!    ![^1]:!<details>".split("!"),
    *("---\n", "===\n", "\n\n", "http://", "\t", "![", "\u3000", "\u200d"),
]
TYPES = [
    *"text/html application/xhtml+xml text/xml text/plain application/json image/svg+xml x text/css".split(),
    *("", "text/html; charset=utf-16", "text/html; charset=zip", "text/html;charset=shift_jis"),
]
PAGE = (Path(__file__).parents[2] / "src/crawlscope/api/dashboard/templates/crawl.html").read_bytes()
SITEMAP = (
    b"<?xml version='1.0'?><urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>"
    b"<url><loc>https://a.example/1</loc></url><sitemap><loc>/more.xml</loc></sitemap></urlset>"
)
ROBOTS = (
    b"User-agent: *\nDisallow: /private/*?a=$\nAllow: /\nCrawl-delay: 2\nRequest-rate: 1/5s 0900-1700\n"
    b"Sitemap: https://a.example/sitemap.xml\n\nUser-agent: crawlscope\nDisallow: /x\n"
)
DOCS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
PATHS = """
/api/metrics/crawls /api/metrics/crawls/{} /api/metrics/crawls/{}/pages /api/metrics/crawls/{}/timeline
/api/metrics/crawls/{}/changes /api/metrics/crawls/{}/attempts /api/metrics/crawls/{}/compare /api/stats
/api/metrics/crawls/{}/page /api/metrics/crawls/{}/events /api/metrics/operations /api/metrics/summary
/api/metrics/requests /api/notifications /api/keys /api/crawls/{}/export /api/changes /crawls/{} /search
/crawls/{}/pages /crawls/{}/failures /crawls/{}/page /compare /sign-in /system /static/{} /{} /
""".split()
POSTS = """
/api/search /api/crawls /api/keys /api/documents /api/deliveries/replay /api/crawls/{}/retry
/api/crawls/{}/watches /mcp /sign-in /sign-out /crawls/{}/retry
""".split()
RANGES = (b"bytes=0-", b"bytes=-1", b"bytes=9-0", b"bytes=0-0,5-7,1-", b"bytes=" + b"0-1," * 500, b"x=1")
STATIC = ("dashboard.css", "dashboard.js", "..%2fbase.html", "fonts", "")
PARAMETERS = """
url limit offset status since until sort state against kind hours success q mode next token buckets method
status_code last_event_id
""".split()


@cache
def recorded_events() -> list[dict[str, Any]]:
    names = sorted(path.name.removesuffix(".jsonl.gz") for path in RECORDINGS.glob("*.jsonl.gz"))
    return [line["event"] for name in names for line in read_deliveries(name)[:40]]


@cache
def recorded_answers() -> list[Any]:
    names = sorted(path.name.removesuffix(".api.json.gz") for path in RECORDINGS.glob("*.api.json.gz"))
    return [each for name in names for each in read_recorded(name).values()]


def json_body(rng: Random, right: Any) -> bytes:
    """Mostly the right value with a change."""
    match rng.randrange(12):
        case 0:
            return changed_bytes(rng, dumped(right))
        case 1:
            return nested(rng, right)
        case 2:
            return dumped(odd_value(rng))
        case 3:
            return rng.choice((b"", b"\xff", b"NaN", b"1e999", b'"\\ud800"', b"1" * 5_000, b'{"type":1e400}'))
    changed = right
    for _ in range(rng.randrange(1, 4)):
        changed = changed_value(rng, changed)
    return dumped(changed)


@asynccontextmanager
async def service(database_url: str, **own: Any) -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory(prefix="crawlscope-fuzz-") as folder:
        settings = Settings(
            _env_file=None,
            data_dir=Path(folder),
            database_url=database_url,
            api_secret=SECRET,
            receive_token=TOKEN,
            embedder="tei",
            embedder_url=NOWHERE,
            **own,
        )
        async with service_parts(settings) as parts:
            yield Service(parts)


def require(answer: Any, what: str) -> None:
    """503 stands for what this service lacks on purpose, its index."""
    assert answer.status_code < 500 or answer.status_code == 503, f"{answer.status_code} to {what}"
    if answer.status_code == 503:
        assert "not ready" in answer.text or "cannot be reached" in answer.text, f"{answer.text} to {what}"


@asynccontextmanager
async def deliveries(database_url: str) -> AsyncIterator[Try]:
    async with service(database_url) as running:

        async def deliver(rng: Random) -> None:
            event = {**rng.choice(recorded_events()), "id": f"crawl-{rng.randrange(20)}"}
            if rng.random() < 0.3:
                family = rng.choice(("crawl", "batch_scrape", "extract", "agent", "monitor", "other"))
                event["type"] = f"{family}.{rng.choice(('started', 'page', 'completed', 'failed', 'x', ''))}"
            body = json_body(rng, event)
            headers = {"Content-Type": "application/json"}
            if rng.random() < 0.05:
                headers["Content-Encoding"] = rng.choice(("gzip", "zstd", "br", "x"))
            odd = quote(rng.choice(ODD_TEXTS)[:900], errors="replace")
            path = rng.choice(("", "", "", f"/{TOKEN}", f"/{odd}"))
            answer = await running.http.post(f"/api/webhook/firecrawl{path}", content=body, headers=headers)
            expected = (202, 307, 400, 401, 404, 405, 422)
            assert answer.status_code in expected, f"{answer.status_code}: {body[:2_000]!r}"

        yield deliver


@asynccontextmanager
async def changes(database_url: str) -> AsyncIterator[Try]:
    right = {"watch_url": "https://a.example/", "watch_id": "w", "diff_summary": "a", "snapshot_url": "b"}
    right |= {"message": '{"watch_url": "https://b.example/"}', "detected_at": "2026-01-31T12:00:00Z"}
    async with service(database_url) as running:

        async def report(rng: Random) -> None:
            body = json_body(rng, right)
            headers = {"Content-Type": "application/json"}
            answer = await running.http.post("/api/webhook/changedetection", content=body, headers=headers)
            assert answer.status_code in (202, 400, 422), f"{answer.status_code}: {body[:2_000]!r}"

        yield report


@asynccontextmanager
async def requests(database_url: str) -> AsyncIterator[Try]:
    """Query strings, ids of events, cookies, keys, forms and bodies of every endpoint."""
    async with service(database_url) as running, running.app.router.lifespan_context(running.app):
        await running.http.post("/api/webhook/firecrawl", json={"type": "crawl.started", "id": "a"})
        await running.http.post("/api/webhook/firecrawl", json={"type": "crawl.completed", "id": "a"})

        def text(rng: Random) -> str:
            chosen = rng.choice(ODD_TEXTS) if rng.random() < 0.5 else str(odd_value(rng, 1))
            return chosen[:6_000].encode("utf-8", "replace").decode()

        async def request(rng: Random) -> None:
            method = rng.choice(("GET", "GET", "GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"))
            path = rng.choice(POSTS if method == "POST" else PATHS)
            path = path.replace("/static/{}", f"/static/{rng.choice((*STATIC, '{}'))}")
            path = path.replace("{}", quote(rng.choice(("a", "a", text(rng))), safe=rng.choice(("", "/."))))
            given = [(rng.choice(PARAMETERS), text(rng)) for _ in range(rng.randrange(4))]
            query = "&".join(f"{name}={quote(value)}" for name, value in given)
            odd = text(rng)[:1_000].encode()
            headers: dict[bytes, bytes] = {
                name: odd.translate(None, b"\r\n\0") if rng.random() < 0.5 else right
                for name, right in (
                    (b"Last-Event-ID", b"0.1"),
                    (b"Cookie", b"crawlscope_session=" + odd.translate(None, b"\r\n\0")),
                    (b"Authorization", b"Bearer csk_" + odd.translate(None, b"\r\n\0")[:50]),
                    (b"Content-Type", b"application/json"),
                    (b"traceparent", b"00-0-0-00"),
                    (b"Range", rng.choice(RANGES)),
                    (b"If-None-Match", rng.choice((b"*", b'"a"', b'W/"a", "b"', b'"'))),
                    (b"If-Modified-Since", b"Thu, 99 Foo 2026 00:00:00 GMT"),
                    (b"Accept", rng.choice((b"text/html", b"text/html;q=x", b"application/json, */*;q=-1"))),
                    (b"X-Forwarded-For", b"::ffff:127.0.0.1, 999.1.1.1"),
                )
                if rng.random() < 0.4
            }
            sender = running.http if rng.random() < 0.8 else running.anonymous
            body = json_body(rng, {"query": "a", "url": "http://127.0.0.1/", "name": "a", "scope": "read"})
            if path.endswith("/events") and method == "GET":
                headers[b"Last-Event-ID"] = b"odd" + odd.translate(None, b"\r\n\0")  # a right one streams
            try:
                answer = await sender.request(
                    method, f"{path}?{query}", headers=headers, content=body if method == "POST" else None
                )
            except ValueError:
                return  # the client sends no such address
            require(answer, f"{method} {path}?{query} {headers} {body[:500]!r}")

        yield request


TOOLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("crawl", {"url": "http://127.0.0.1/", "limit": 3}),
    ("batch_scrape", {"urls": ["http://127.0.0.1/"]}),
    ("crawl_status", {"crawl_id": "a"}),
    ("list_crawls", {"limit": 5}),
    ("profile_crawl", {"crawl_id": "a", "include_details": True, "error_offset": 0, "error_limit": 5}),
    ("compare_crawls", {"a": "a", "b": "a"}),
    ("retry_failed_pages", {"crawl_id": "a"}),
    ("cancel_crawl", {"crawl_id": "a"}),
    ("search", {"query": "a", "mode": "keyword", "limit": 3, "domain": "a.example"}),
)


@asynccontextmanager
async def tools(database_url: str) -> AsyncIterator[Try]:
    """Possible inputs of an agent program: names and arguments of tools."""
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    async with service(database_url) as running, running.app.router.lifespan_context(running.app):
        await running.http.post("/api/webhook/firecrawl", json={"type": "crawl.completed", "id": "a"})

        async def call(rng: Random) -> None:
            name, arguments = rng.choice(TOOLS)
            for _ in range(rng.randrange(1, 4)):
                arguments = changed_value(rng, arguments)
            params = {"name": name if rng.random() < 0.95 else rng.choice(ODD_TEXTS), "arguments": arguments}
            asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            body = dumped(asked) if rng.random() < 0.8 else json_body(rng, asked)
            answer = await running.http.post("/mcp", content=body, headers=headers)
            require(answer, f"{body[:2_000]!r}")
            assert "failed unexpectedly" not in answer.text, f"{answer.text[:2_000]} to {body[:2_000]!r}"

        yield call


@asynccontextmanager
async def html(_: str) -> AsyncIterator[Try]:
    async def read(rng: Random) -> None:
        body = bomb(rng, rng.choice(HTML)) if rng.random() < 0.02 else changed_bytes(rng, PAGE, HTML)
        headers = {"link": rng.choice(ODD_TEXTS), "refresh": f"0;url={rng.choice(ODD_TEXTS)}"}
        page = FetchedPage("https://a.example/", 200, rng.choice(TYPES), body, headers)
        text = read_page(page)
        text.markdown.encode()

    yield read


@asynccontextmanager
async def sitemaps(_: str) -> AsyncIterator[Try]:
    async def read(rng: Random) -> None:
        body = bomb(rng, rng.choice(XML)) if rng.random() < 0.02 else changed_bytes(rng, SITEMAP, XML)
        listing = listing_of(decode(body, rng.choice((None, "utf-8", "utf-16", "zip"))), "https://a.example/")
        assert not [url for url in listing.pages if not url.startswith("http")]
        assert not [url for url in listing.pages if "root:" in url]

    yield read


@asynccontextmanager
async def robots(_: str) -> AsyncIterator[Try]:
    lines = ROBOTS.splitlines(keepends=True)
    odd = [b"*" * 40, b"$", b"%", b"Disallow: /" + b"a*" * 200, b"Crawl-delay: 1e400", b"Crawl-delay: nan"]
    odd += [b"Request-rate: 0/0", b"Request-rate: 1/0s", b"Request-rate: 9/" + b"9" * 400, b"Crawl-delay: -5"]

    async def read(rng: Random) -> None:
        body = bomb(rng, rng.choice(lines), most=5_000) if rng.random() < 0.02 else ROBOTS
        answer = FetchedPage("https://a.example/robots.txt", 200, "text/plain", changed_bytes(rng, body, odd))
        rules = RobotsRules.read(answer.url, answer)
        for url in (
            "https://a.example/" + "a" * 300,
            "https://a.example/private/%ff?a=",
            "https://a.example/x",
        ):
            rules.allows(url)
        assert 0.0 <= rules.delay_seconds <= 30.0, rules.delay_seconds
        list(map(normalise, rules.sitemaps))

    yield read


@asynccontextmanager
async def markdown(_: str) -> AsyncIterator[Try]:
    tokenizer, encoder = load_minilm_tokenizer(), Bm25Encoder()
    sections = [section for page in DOCS for section in page.read_text().split("\n## ")]

    async def index(rng: Random) -> None:
        if rng.random() < 0.02:
            text = bomb(rng, rng.choice(MARKDOWN).encode()).decode()
        else:
            text = rng.choice(sections)[:4_000]
            for _ in range(rng.randrange(1, 6)):
                place = rng.randrange(len(text) + 1)
                odd = rng.choice((*MARKDOWN, *(each[:3_000] for each in ODD_TEXTS)))
                text = changed_text(rng, text[:place] + odd * rng.choice((1, 1, 5, 50)) + text[place:])
        with suppress(CrawlscopeError):
            cleaned = clean(text.encode("utf-8", "replace").decode())
            chunks = split(cleaned, tokenizer, 200)
            passages("", cleaned, chunks, tokenizer)
            encoder.encode_document(cleaned[:5_000], language_of(cleaned))

    yield index


@asynccontextmanager
async def queries(_: str) -> AsyncIterator[Try]:
    pieces = ('"', "-", '-"', "'", "“", "two words", "*", "(", "\\", ":", " ", "-a", '"a', "naïve", "東京")
    encoder = Bm25Encoder()

    async def parse(rng: Random) -> None:
        chosen = [rng.choice((*pieces, rng.choice(ODD_TEXTS))) for _ in range(rng.randrange(1, 12))]
        text = "".join(chosen)[:4_096]
        query = ParsedQuery.of(text)
        encoder.encode_query(text.encode("utf-8", "replace").decode())
        for phrase in map(Phrase.of, (*query.required, *query.excluded)):
            phrase.is_in(text)

    yield parse


@asynccontextmanager
async def backups(_: str) -> AsyncIterator[Try]:
    now = datetime.now(UTC).isoformat()
    right = {"version": "1", "revision": "0001", "created_at": now, "rows": {"a": 1}}
    with tempfile.TemporaryDirectory(prefix="crawlscope-fuzz-") as folder:
        file = Path(folder) / "backup"

        async def read(rng: Random) -> None:
            whole = io.BytesIO()
            compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            with zipfile.ZipFile(whole, "w", compression) as archive:
                archive.writestr(DESCRIPTION, json_body(rng, right))
                archive.writestr(rng.choice((DUMP, DUMP, "../../x")), bytes(rng.choice((9, 1 << 22))))
            file.write_bytes(changed_bytes(rng, whole.getvalue()) if rng.random() < 0.8 else whole.getvalue())
            with suppress(CrawlscopeError), _opened(file) as archive:
                _description(archive, file)

        yield read


@asynccontextmanager
async def firecrawl(_: str) -> AsyncIterator[Try]:
    async with answering() as server, FirecrawlClient(server.url, "key", patience_seconds=0.5) as client:

        async def ask(rng: Random) -> None:
            server.response = response(rng, json_body(rng, rng.choice(recorded_answers())))
            with suppress(CrawlscopeError):
                match rng.randrange(5):
                    case 0:
                        await client.status("a")
                    case 1:
                        await client.errors("a")
                    case 2:
                        await client.active()
                    case 3:
                        await client.start_crawl("https://a.example")
                    case 4:
                        async for documents in client.documents("a"):
                            assert all(isinstance(each, dict) for each in documents)

        yield ask


@asynccontextmanager
async def embedders(_: str) -> AsyncIterator[Try]:
    rows = [[0.1, 0.2], [0.3, 0.4]]
    dialects: dict[Dialect, object] = {
        TeiDialect(): rows,
        OpenAIDialect("m", "/v1/embeddings"): {
            "data": [{"index": at, "embedding": row} for at, row in enumerate(rows)]
        },
        OpenAIDialect("m", "/embeddings"): {
            "data": [{"index": at, "embedding": "zczMPc3MTD4="} for at in range(2)]
        },
    }
    async with answering() as server, aclosing(EmbeddingServer(server.url, "key", 2.0)) as embedding:

        async def embed(rng: Random) -> None:
            dialect, right = rng.choice(list(dialects.items()))
            server.response = response(rng, json_body(rng, right))
            with suppress(CrawlscopeError, BatchTooLarge):
                vectors = await request_vectors(embedding, dialect, ["a", "b"])
                assert vectors.shape[0] == 2

        yield embed


@asynccontextmanager
async def rerankers(_: str) -> AsyncIterator[Try]:
    right = [{"index": at, "score": 0.5} for at in range(3)]
    relevances = {"results": [{"index": at, "relevance_score": 0.5} for at in range(3)]}
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(answering())
        tei, cohere = (
            RerankingServer(server.url, model, "key", patience_seconds=0.5) for model in (None, "m")
        )
        for each in (tei, cohere):
            await opened.enter_async_context(each)

        async def rerank(rng: Random) -> None:
            reranker, answer = rng.choice(((tei, right), (cohere, relevances)))
            server.response = response(rng, json_body(rng, answer))
            with suppress(CrawlscopeError):
                assert len(await reranker.scores("q", ["a", "b", "c"])) == 3

        yield rerank


@asynccontextmanager
async def watchers(_: str) -> AsyncIterator[Try]:
    right = {"b6f7": {"url": "https://a.example/", "title": None, "paused": False}}
    async with (
        answering() as server,
        ChangedetectionClient(server.url, "key", patience_seconds=0.5) as client,
    ):

        async def ask(rng: Random) -> None:
            server.response = response(rng, json_body(rng, right))
            with suppress(CrawlscopeError):
                await (client.watched_urls() if rng.random() < 0.5 else client.create({"url": "a"}))

        yield ask


@asynccontextmanager
async def fetching(_: str) -> AsyncIterator[Try]:
    """Possible answers of a website to the built-in crawler, bombs included."""
    async with (
        answering() as server,
        PageClient(timeout_seconds=2.0, allow_private=True, max_bytes=1 << 20) as client,
    ):

        async def fetch(rng: Random) -> None:
            server.response = response(rng, changed_bytes(rng, PAGE, HTML), rng.choice(TYPES))
            with suppress(FetchFailed):
                first_bytes = rng.choice((None, None, 1_000))
                page = await client.get(server.url, text_only=rng.random() < 0.5, first_bytes=first_bytes)
                assert len(page.body) <= 1 << 20
                read_page(page)

        yield fetch


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (
        *(requests, deliveries, changes, tools, html, sitemaps, robots, markdown, queries, backups),
        *(firecrawl, embedders, rerankers, watchers, fetching),
    )
}
"""Requests come first, because some of them read all deliveries that there are."""
