"""What of a URL the index filters by: its host, and the prefixes it stands under."""

from urllib.parse import urlsplit

import ada_url

DEEPEST_PREFIX = 16
LONGEST_PREFIX = 512


def domain_of(url: str) -> str:
    """The host in lower case, without port, as DNS knows it: `xn--mnchen-3ya.example`. Empty where the URL
    names none."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
    try:
        return host if host.isascii() else ada_url.URL(f"http://{host}/").hostname
    except ValueError:
        return host


def host_of(text: str) -> str:
    """`domain_of` the host that somebody wrote: in any case, with a port, or as a whole URL."""
    return domain_of(text if "://" in text else f"//{text}") or text


def url_prefixes(url: str) -> list[str]:
    """Every prefix that ends at a path segment, shortest first: `https://h/`, `https://h/a/`, …

    Bounded in number and length, so that a hostile URL cannot make a chunk heavy: a filter that
    goes deeper is answered from the URL itself.
    """
    path_end = min((at for at in map(url.find, "?#") if at >= 0), default=len(url))
    scheme_end = url.find("://", 0, path_end)
    path_start = url.find("/", scheme_end + 3 if scheme_end >= 0 else 0, path_end)
    if path_start < 0:
        return _bounded([f"{url[:path_end]}/"])
    ends = (at + 1 for at in range(path_start, path_end) if url[at] == "/")
    return _bounded([url[:end] for end, _ in zip(ends, range(DEEPEST_PREFIX), strict=False)])


def _bounded(prefixes: list[str]) -> list[str]:
    return [prefix for prefix in prefixes if len(prefix) <= LONGEST_PREFIX]
