"""Compresses stored bodies of deliveries."""

import sys
import zlib

from crawlscope.core.errors import UsageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,  # 4 % less than 1, in 12 µs more
    zstd.CompressionParameter.checksum_flag: 1,
}
"""With a checksum: else most damages would go unnoticed."""
_MAGIC = b"\x28\xb5\x2f\xfd"


class DamagedBody(UsageError):
    """A stored body that cannot be decompressed."""

    code = "unreadable"


def compress(body: bytes) -> bytes:
    return zstd.compress(body, options=_OPTIONS)


def decompress(stored: bytes) -> bytes:
    """Older versions compressed with zlib. Raises `DamagedBody`."""
    try:
        return zstd.decompress(stored) if stored.startswith(_MAGIC) else zlib.decompress(stored)
    except (zstd.ZstdError, zlib.error) as error:
        raise DamagedBody(f"the stored body cannot be decompressed: {error}") from None
