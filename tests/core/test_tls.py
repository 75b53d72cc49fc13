"""Certificates are read once, however many clients a process opens."""

import ssl

import httpcore2
import pytest

from crawlscope.core import tls
from crawlscope.crawler.fetch import PageClient
from crawlscope.crawler.sender import WebhookSender
from crawlscope.indexing.embedders.http import EmbeddingServer
from crawlscope.notifications.sending import Receiver
from tests.support.fakes.notification_receiver import SECRET


async def test_all_clients_share_what_they_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    read, context = list[None](), httpcore2.default_ssl_context()

    def noted(**_: object) -> ssl.SSLContext:
        read.append(None)
        return context

    monkeypatch.setattr(httpcore2, "default_ssl_context", noted)
    tls.trusted.cache_clear()
    for _ in range(2):
        for client in (
            PageClient(timeout_seconds=1, allow_private=True),
            WebhookSender(lambda: "", "secret"),
            Receiver("http://127.0.0.1:1", SECRET),
            EmbeddingServer("http://127.0.0.1:1"),
        ):
            await client.aclose()
    assert read == [None]
