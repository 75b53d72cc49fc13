"""One call of Firecrawl's API: the result is an answer or a one-line error without the key."""

import json
import re
from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any, cast

from crawlscope.core.errors import FirecrawlJobUnknown, FirecrawlRefused, FirecrawlUnavailable
from crawlscope.core.http_settings import header_safe_key, server_url
from crawlscope.core.remote_api import RemoteApi, Response, login
from crawlscope.core.retry_after import retry_after_seconds
from crawlscope.core.values import storable_json
from crawlscope.firecrawl.schemas import tells_of_job

_MAY_NOT_BE_STORABLE = re.compile(rb"\\u|\xed[\xa0-\xbf]|NaN|Infinity")
"""NUL and lone surrogates, escaped or not, and the numbers that JSON does not have."""
_WAIT_IN_WORDS = re.compile(r"retry after (\d+)s")
"""The words of the hosted Firecrawl, which sends no header."""


class EndpointMissing(Exception):
    """The server is too old for it. It says so in HTML; that it does not know a crawl, in JSON."""


class FirecrawlServer(RemoteApi):
    called = "Firecrawl"
    unavailable = FirecrawlUnavailable
    largest_answer_bytes = 128 * 1024 * 1024
    """A page of results has at most 10 MiB, or one document."""

    def __init__(
        self, url: str, api_key: str | None, patience_seconds: float, hidden: Collection[str] = ()
    ) -> None:
        address, key = server_url("FIRECRAWL_URL", url), header_safe_key("FIRECRAWL_API_KEY", api_key)
        super().__init__(
            address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auth=None if key else login(address),
            patience_seconds=patience_seconds,
            hidden=(key, *hidden),
        )

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object answered. `path` follows the base URL's own and may hold a query.

        Raises `EndpointMissing`, `FirecrawlUnavailable`, `FirecrawlRefused` or `FirecrawlJobUnknown`.
        """
        response = await self.request(method, path, body)
        missing = f"Cannot {response.method} /".encode()
        if response.status == HTTPStatus.NOT_FOUND and missing in response.body:
            raise EndpointMissing
        fields = _fields(response)
        if _refuses(response, fields):
            raise self._refusal(response, fields)
        if fields is None:
            kind = response.headers.get("content-type", "no type")
            raise self.failure(f"answered something else than a JSON object ({kind}).", maybe_done=True)
        return fields

    def complaint(self, response: Response) -> str:
        return ": ".join(_complaints(_fields(response) or {}))

    def requested_delay(self, response: Response) -> float | None:
        fields = _fields(response) or {}
        header = response.headers.get("retry-after") or str(fields.get("retry_after_seconds", ""))
        in_words = _WAIT_IN_WORDS.search(self.reason(response))
        return retry_after_seconds(header or (in_words and in_words[1]))

    def _refusal(self, response: Response, fields: dict[str, Any] | None) -> Exception:
        reason = self.reason(response)
        unknown = response.status == HTTPStatus.NOT_FOUND and response.method != "POST"
        if unknown and "error" in (fields or {}):  # of other servers 404 says that they are no Firecrawl
            return FirecrawlJobUnknown(f"Firecrawl knows no such crawl{reason}", expired="expired" in reason)
        if response.status == HTTPStatus.UNAUTHORIZED:
            reason = f"{reason.rstrip('.')}. Check CRAWLSCOPE_FIRECRAWL_API_KEY."
        elif unknown or fields is None:
            reason = f": {self.address} is no Firecrawl. Check CRAWLSCOPE_FIRECRAWL_URL."
        return FirecrawlRefused(f"Firecrawl refused ({response.status_line}){reason}", response.status)


def _fields(response: Response) -> dict[str, Any] | None:
    """The JSON object, with texts that PostgreSQL can hold; None for anything else."""
    answer = response.json()
    if not isinstance(answer, dict):
        return None
    if not _MAY_NOT_BE_STORABLE.search(response.body):
        return answer
    try:
        return cast(dict[str, Any], json.loads(storable_json(answer)))
    except (ValueError, RecursionError):
        return None


def _refuses(response: Response, fields: dict[str, Any] | None) -> bool:
    """An answer on a failed job can have `success: false`, too: that is no refusal."""
    if not 200 <= response.status < 300:
        return True
    if fields is None or fields.get("success") is not False:
        return False
    return response.method != "GET" or not tells_of_job(fields)


def _complaints(fields: dict[str, Any]) -> Iterator[str]:
    """`details` are the complaints of its validation."""
    details = fields.get("details")
    issues = [issue for issue in details if isinstance(issue, dict)] if isinstance(details, list) else []
    for words in (fields.get("error"), fields.get("message"), *(issue.get("message") for issue in issues)):
        if isinstance(words, str) and words:
            yield words
