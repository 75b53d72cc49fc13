"""Which URLs are the same page, which are of the same site, and which are worth asking for."""

import re
from urllib.parse import SplitResult, quote, urljoin, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8192
_KEPT_IN_PATH = "%/:=&?~+!$,;'@()*[]|^`{}\\<>\""
_NOT_A_PAGE = re.compile(
    r"\.(?:avif|bmp|gif|heic|ico|jpe?g|png|psd|svg|tiff?|webp"
    r"|aac|avi|flac|m4[av]|mid|mkv|mov|mp[34]|mpe?g|og[gv]|swf|wav|web[am]|wmv"
    r"|docx?|epub|od[pst]|pdf|pptx?|ps|rtf|xlsx?"
    r"|7z|apk|bin|bz2|class|deb|dll|dmg|exe|gz|iso|jar|msi|pkg|rar|rpm|so|tar|tgz|whl|xz|zip|zst"
    r"|css|eot|m?js|map|otf|ttf|wasm|woff2?)$",
    re.IGNORECASE,
)


def normalise(url: str, base: str | None = None) -> str | None:
    """One spelling for one page: no fragment, no credentials, no default port; the query stays as it is.

    None for what no crawler can ask for: other schemes, malformed hosts and ports, endless URLs.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()) if base else url.strip())
        return _spell(parts)
    except ValueError:
        return None


def site_of(url: str) -> str:
    """Host and port of a normalised URL; the schemes' default ports count as the same."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 'default'}"


def names_a_page(url: str) -> bool:
    """Whether the name leaves hope for text: images, archives, scripts and the like do not."""
    return _NOT_A_PAGE.search(urlsplit(url).path) is None


def _spell(parts: SplitResult) -> str | None:
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").rstrip(".")
    if scheme not in _DEFAULT_PORTS or not host:
        return None
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if ":" in host:
        host = f"[{host}]"
    port = parts.port
    authority = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    query = f"?{quote(parts.query, safe=_KEPT_IN_PATH)}" if parts.query else ""
    url = f"{scheme}://{authority}{quote(parts.path, safe=_KEPT_IN_PATH) or '/'}{query}"
    return url if len(url) <= _MAX_URL else None
