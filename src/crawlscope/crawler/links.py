"""URLs: which are the same page, which are of the same site, and which are worth a request.

URLs are read by the WHATWG's rules, as browsers read them: international host names (UTS 46), backslashes,
odd spellings of IPv4 addresses, dot segments.
"""

import re
import string
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import ada_url

_SCHEMES = {"http:", "https:"}
_NAME = re.compile(r"\[[^\[\]]+\]|[^.]{1,63}(?:\.[^.]{1,63})*")
"""An IPv6 address, or labels no longer than DNS can carry."""
_MAX_URL = 8192
_NOT_A_PAGE = re.compile(
    r"\.(?:avif|bmp|gif|heic|ico|jpe?g|png|psd|svg|tiff?|webp"
    r"|aac|avi|flac|m4[av]|mid|mkv|mov|mp[34]|mpe?g|og[gv]|swf|wav|web[am]|wmv"
    r"|docx?|epub|od[pst]|pdf|pptx?|ps|rtf|xlsx?"
    r"|7z|apk|bin|bz2|class|deb|dll|dmg|exe|gz|iso|jar|msi|pkg|rar|rpm|so|tar|tgz|whl|xz|zip|zst"
    r"|css|eot|m?js|map|otf|ttf|wasm|woff2?)$",
    re.IGNORECASE,
)
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_MALFORMED_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TRACKING = re.compile(
    r"(?:utm|pk|mtm|piwik|matomo|hsa|oly|vero)_\w+|_hs\w+|__hs\w+|hsctatracking|ml_subscriber\w*"
)
_CLICK_IDS = frozenset(
    [
        "gclid", "gclsrc", "gad_source", "gad_campaignid", "gbraid", "wbraid", "dclid", "srsltid", "_ga",
        "_gl", "fbclid", "igshid", "igsh", "msclkid", "yclid", "ysclid", "_openstat", "twclid", "ttclid",
        "rdt_cid", "li_fat_id", "epik", "irclickid", "wickedid", "mc_cid", "mc_eid", "mkt_tok",
        "_branch_match_id", "s_kwcid", "ef_id", "_kx", "__s", "scclid",
    ]
)  # fmt: skip
_SESSION = re.compile(
    r"jsessionid|phpsessid|aspsessionid\w*|asp\.net_sessionid|cfid|cftoken|oscsid|zenid|xtc?sid"
)
_MAY_BE_SESSION = re.compile(r"sess(?:ion)?_?id|sid")
# A small number behind `sid` is a story or a section, not a session.
_SESSION_VALUE = re.compile(r"(?=\D*\d)[\w.!-]{16,}", re.ASCII)
_SESSION_IN_PATH = re.compile(
    r";(?:jsessionid|phpsessid|sessionid|sid)=[^/;]*|/\((?:[AFSX]\([\w-]+\))+\)(?=/)",
    re.IGNORECASE | re.ASCII,
)
_INDEX_PAGE = re.compile(r"/(?:index|default|home|welcome)\.(?:s?html?|xhtml|php\d?|aspx?|jspx?|cgi|cfm)$")
_MAX_REPETITIONS = 5
_MAX_REPEATED_PIECES = 16


@lru_cache(maxsize=16_384)
def normalise(url: str, base: str | None = None) -> str | None:
    """One address for one page: `absolute`, without tracking parameters and session ids."""
    found = absolute(url, base)
    if found is None:
        return None
    parts = urlsplit(found)
    path = _SESSION_IN_PATH.sub("", parts.path) or "/"
    query = "&".join(filter(_says_something, parts.query.split("&")))
    return f"{parts.scheme}://{parts.netloc}{path}{'?' if query else ''}{query}"


def absolute(url: str, base: str | None = None) -> str | None:
    """One spelling for one address: no fragment, no credentials, no default port, no empty query; escapes in
    upper case and only if they have a meaning.

    None for URLs that no crawler can request: other schemes, malformed hosts and ports, endless URLs.
    """
    try:
        parts = ada_url.URL(url, base) if base else ada_url.URL(url)
    except ValueError:
        return None
    host = parts.hostname.rstrip(".")
    if parts.protocol not in _SCHEMES or parts.port == "0" or not _NAME.fullmatch(host):
        return None
    authority = f"{host}:{parts.port}" if parts.port else host
    query = _respelled(parts.search[1:])
    url = f"{parts.protocol}//{authority}{_respelled(parts.pathname)}{'?' if query else ''}{query}"
    return url if len(url) <= _MAX_URL else None


def site_of(url: str) -> str:
    """Host and port of a normalised URL; the schemes' default ports count as the same."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 'default'}"


def same_name(site: str, other: str) -> bool:
    """Whether two sites differ by no more than a leading `www.`."""
    return site.removeprefix("www.") == other.removeprefix("www.")


def names_a_page(url: str) -> bool:
    """Whether the name leaves hope for text: images, archives, scripts and the like do not."""
    return _NOT_A_PAGE.search(urlsplit(url).path) is None


def repeats_itself(url: str) -> bool:
    """Whether the same path segments or the same parameter come five times in a row: the mark of links that
    lead back to where they are."""
    parts = urlsplit(url)
    return _has_run(parts.path.strip("/").split("/")) or _has_run(parts.query.split("&"))


def moved_to(url: str, home: str) -> str:
    """The same path and query at the scheme, host and port of `home`."""
    there = urlsplit(home)
    return urlsplit(url)._replace(scheme=there.scheme, netloc=there.netloc).geturl()


def like(url: str, other: str) -> str:
    """The URL with the other's scheme, if both are of one site on a default port."""
    site = site_of(url)
    return moved_to(url, other) if site.endswith(":default") and site == site_of(other) else url


def variant_key(url: str) -> str:
    """Equal for addresses under which servers often show one page: with and without `www.`, a slash at the
    end, the name of an index page, or a query, in any case. Only a reason to compare what they show."""
    parts = urlsplit(url.casefold())
    path = _INDEX_PAGE.sub("", re.sub(r"/{2,}", "/", parts.path)).rstrip("/")
    return site_of(url.casefold()).removeprefix("www.") + path


def _has_run(pieces: list[str]) -> bool:
    for period in range(1, min(len(pieces) // _MAX_REPETITIONS, _MAX_REPEATED_PIECES) + 1):
        alike = 0
        for earlier, later in zip(pieces, pieces[period:], strict=False):
            alike = alike + 1 if earlier == later else 0
            if alike == (_MAX_REPETITIONS - 1) * period:
                return True
    return False


def _respelled(part: str) -> str:
    """RFC 3986, 6.2.2; what is malformed stays as it is."""
    if "%" not in part or _MALFORMED_ESCAPE.search(part):
        return part

    def plain_or_upper(escape: re.Match[str]) -> str:
        character = chr(int(escape[1], 16))
        return character if character in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(plain_or_upper, part)


def _says_something(parameter: str) -> bool:
    """Whether the page can depend on the parameter: tracking and session parameters do not change it."""
    name, _, value = parameter.partition("=")
    name = unquote(name).lower()
    if not parameter or name in _CLICK_IDS or _TRACKING.fullmatch(name) or _SESSION.fullmatch(name):
        return False
    return not (_MAY_BE_SESSION.fullmatch(name) and _SESSION_VALUE.fullmatch(value))
