"""The W3C trace context that goes along with a crawl, so that traces elsewhere can be joined to it."""

import re
import secrets

_VALID = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.{0,200})?",
    re.ASCII,
)


def trace_context(given: str | None) -> str:
    """The given `traceparent` if it is valid, else a new one, sampled."""
    found = _VALID.fullmatch((given or "").strip())
    if found and not (found["version"] == "00" and found["more"]):
        return found[0]
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
