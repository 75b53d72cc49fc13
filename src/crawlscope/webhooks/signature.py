"""Who may deliver: the API secret in a header, the token in the URL, or Firecrawl's HMAC over the body."""

import hmac
from hashlib import sha256

PREFIX = "sha256="


def signs(signature: str | None, secret: str, body: bytes) -> bool:
    """Whether `sha256=<hex>` is the body's HMAC-SHA256 under the secret; compared in constant time."""
    if not signature or not signature.startswith(PREFIX):
        return False
    expected = hmac.new(secret.encode(), body, sha256).hexdigest()
    return same_secret(signature.removeprefix(PREFIX), expected)


def same_secret(given: str | None, expected: str) -> bool:
    """Compares in constant time; nothing given is never right."""
    if not given:
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))
