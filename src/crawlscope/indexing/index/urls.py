"""The parts of a URL that the index filters by: its host and its prefixes."""

from urllib.parse import urlsplit

import ada_url

MAX_PREFIX_SEGMENTS = 16
MAX_PREFIX_LENGTH = 512


def domain_of(url: str) -> str:
    """The host in lower case, without port, in DNS form: `xn--mnchen-3ya.example`. Empty without a host."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
    try:
        return host if host.isascii() else ada_url.URL(f"http://{host}/").hostname
    except ValueError:
        return host


def host_of(text: str) -> str:
    """`domain_of` for a host as people write it: in any case, with a port, or as a whole URL."""
    return domain_of(text if "://" in text else f"//{text}") or text


def url_prefixes(url: str) -> list[str]:
    """Every prefix that ends at a path segment, shortest first: `https://h/`, `https://h/a/`, …

    Limited in number and length, because hostile URLs would make chunks large. Longer filters are matched
    against the URL itself.
    """
    path_end = min((at for at in map(url.find, "?#") if at >= 0), default=len(url))
    scheme_end = url.find("://", 0, path_end)
    path_start = url.find("/", scheme_end + 3 if scheme_end >= 0 else 0, path_end)
    if path_start < 0:
        return _bounded([f"{url[:path_end]}/"])
    ends = (at + 1 for at in range(path_start, path_end) if url[at] == "/")
    return _bounded([url[:end] for end, _ in zip(ends, range(MAX_PREFIX_SEGMENTS), strict=False)])


def _bounded(prefixes: list[str]) -> list[str]:
    return [prefix for prefix in prefixes if len(prefix) <= MAX_PREFIX_LENGTH]
