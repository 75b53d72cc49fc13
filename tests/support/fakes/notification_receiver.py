"""A receiver of notifications as its author would write it: it takes what the library verifies."""

from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.fakes.firecrawl_http import Reply, Request, Server

SECRET = "whsec_c2l4dGVlbiBieXRlcyBhbmQgc29tZSBtb3JlIQ=="
OK = Reply(204, {})
PATH = "/hooks/crawls"


class FakeReceiver:
    """Answers with `replies` in turn, the last one ever after."""

    def __init__(self, *replies: Reply, secret: str = SECRET) -> None:
        self.replies = list(replies) or [OK]
        self.replies_to: dict[str, list[Reply]] = {}
        """The answers to notifications of one crawl, as long as there are any."""
        self.requests: list[Request] = []
        self.messages: list[dict[str, Any]] = []
        """Those that were verified."""
        self._webhook = Webhook(secret)

    def __enter__(self) -> Self:
        self._server = Server(0, self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}{PATH}"

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]

    def of(self, crawl_id: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["data"]["crawl_id"] == crawl_id]

    def _answer(self, request: Request, _host: str) -> Reply | None:
        self.requests.append(request)
        if request.path != PATH:
            return Reply(404, {})
        try:
            message = self._webhook.verify(request.content, dict(request.headers))
        except WebhookVerificationError as error:
            return Reply(401, {"detail": str(error)})
        self.messages.append(message)
        if own := self.replies_to.get(message["data"]["crawl_id"]):
            return own.pop(0)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
