"""What a watch of changedetection.io says when its page has changed, and where: pure wording."""

from urllib.parse import quote

from crawlscope.core.service_file import CHANGES_PATH

FORMAT = "text"
"""The others put HTML into the body."""
BODY = """\
{
  "watch_url": {{ watch_url | tojson }},
  "watch_id": {{ watch_uuid | tojson }},
  "watch_title": {{ watch_title | tojson }},
  "diff": {{ diff | tojson }},
  "snapshot_url": {{ preview_url | tojson }},
  "detected_at": {{ change_datetime | tojson }}
}"""
"""A template that changedetection.io fills in."""


def by_secret(address: str, secret: str) -> str:
    """The notification URL that sends the API secret as a header. `address` is where others reach us."""
    # Both Apprise and changedetection.io decode a header's value.
    return f"{_sent_to(address)}?+X-API-Secret={_quoted(_quoted(secret))}"


def by_token(address: str, token: str) -> str:
    """The notification URL that names the receive token in its path, and no secret."""
    return f"{_sent_to(address)}/{_quoted(token)}"


def spellings(secret: str) -> set[str]:
    """All that it can look like in what changedetection.io says of a watch."""
    return {secret, _quoted(secret), _quoted(_quoted(secret))}


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _sent_to(address: str) -> str:
    """Apprise writes a POST as `post://`, and with TLS as `posts://`."""
    scheme, _, place = address.partition("://")
    return f"{'posts' if scheme.lower() == 'https' else 'post'}://{place}{CHANGES_PATH}"
