"""Makes wrong inputs of right ones. A random number generator decides, so a seed repeats an input."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

ODD_TEXTS = (
    *("", "\0", "\ud800", "\udfff\ud800", "\ufeff", "\u202e", "\u0130", "ß" * 300, "😀" * 50, "a" * 70_000),
    *("http://", "https://[::1", "http://a.example:99999/", "javascript:alert(1)", "//", "data:text/html,x"),
    *("../../etc/passwd", "%00", "%", "%zz", "' OR 1=1 --", "{{7*7}}", "${jndi:ldap://a}", "\r\nX: y"),
    *("1e400", "-0", "NaN", "null", "true", "0x10", "9" * 400, "2026-13-45T99:99:99Z", "0001-01-01", "١٢"),
)
ODD_NUMBERS = (0, -1, 2**31, 2**63, -(2**63) - 1, 10**300, 10**4000, 1.5, -0.0, 1e308, 5e-324)
ODD_BYTES = (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\x1b$", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")


def odd_value(rng: Random, depth: int = 3) -> Any:
    """Anything that JSON can say."""
    match rng.randrange(9 if depth else 7):
        case 0:
            return rng.choice(ODD_TEXTS)
        case 1:
            return rng.choice(ODD_NUMBERS)
        case 2:
            return rng.choice((None, True, False))
        case 3:
            return "".join(chr(rng.randrange(0x300)) for _ in range(rng.randrange(20)))
        case 4:
            return rng.randrange(-10, 10_000)
        case 5:
            return [] if rng.random() < 0.5 else {}
        case 6:
            return f"https://a.example/{rng.randrange(20)}"
        case 7:
            return [odd_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    names = (f"k{rng.randrange(9)}", rng.choice(ODD_TEXTS), "url", "id", "type")
    return {rng.choice(names): odd_value(rng, depth - 1) for _ in range(rng.randrange(4))}


def changed_value(rng: Random, value: Any) -> Any:
    """The same JSON with something in it replaced, dropped, repeated or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        match rng.randrange(5):
            case 0:
                return {key: each for key, each in value.items() if key != name}
            case 1:
                return {**value, rng.choice([*value, *ODD_TEXTS]): odd_value(rng)}
        return {**value, name: changed_value(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value * rng.randrange(4)
        return [*value[:place], changed_value(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.4:
        return changed_text(rng, value)
    return odd_value(rng)


def nested(rng: Random, value: Any) -> bytes:
    """JSON within 1 to 100,000 arrays or objects, some of them without an end."""
    depth = int(10 ** rng.uniform(0, 5))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + dumped(value) + closing * (depth if rng.random() < 0.7 else depth // 2)


def dumped(value: Any) -> bytes:
    """JSON; lone surrogates are escaped, infinite numbers as JavaScript would not."""
    return json.dumps(value).encode()


def changed_text(rng: Random, text: str) -> str:
    place = rng.randrange(len(text) + 1)
    end = min(len(text), place + rng.randrange(1, 40))
    match rng.randrange(4):
        case 0:
            return text[:place] + rng.choice(ODD_TEXTS) + text[place:]
        case 1:
            return text[:place] + text[end:]
        case 2:
            return text[:end] + text[place:end] * rng.choice((1, 2, 50)) + text[end:]
    return text[:place] + "".join(rng.sample(text[place:end], end - place)) + text[end:]


def changed_bytes(rng: Random, body: bytes, pieces: Sequence[bytes] = ()) -> bytes:
    """1 to 8 changes: bits, odd bytes, `pieces` of the format, parts removed, repeated or cut off."""
    changed = bytearray(body)
    for _ in range(rng.randrange(1, 9)):
        place = rng.randrange(len(changed) + 1)
        end = min(len(changed), place + rng.choice((1, 4, 40, 400)))
        match rng.randrange(6):
            case 0 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place:place] = rng.choice((*ODD_BYTES, rng.randbytes(5)))
            case 2 if pieces:
                changed[place:place] = rng.choice(pieces) * rng.choice((1, 1, 1, 3, 100))
            case 3:
                del changed[place:end]
            case 4:
                changed[place:place] = changed[place:end] * rng.choice((1, 2, 20))
            case 5 if rng.random() < 0.2:
                del changed[place:]
    return bytes(changed[: 1 << 20])


def bomb(rng: Random, opening: bytes, closing: bytes = b"", most: int = 100_000) -> bytes:
    """The same again and again, perhaps with its end."""
    count = int(10 ** rng.uniform(0, 5)) % most + 1
    return opening * count + b"x" + (closing * count if rng.random() < 0.5 else b"")
