"""Passes on the stderr of a child process, and keeps its last lines."""

import asyncio
import collections
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence

MAX_LINE_BYTES = 64 * 1024


@contextlib.asynccontextmanager
async def relayed_stderr(last_lines: collections.deque[str]) -> AsyncIterator[int]:
    """Yields the descriptor for the child; its lines go to our stderr and to `last_lines`.

    Not asyncio's own pipe: a descendant that holds that open can keep the child's end from being seen.
    """
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )

    def pass_on(lines: Sequence[bytes]) -> None:
        decoded = [line.decode(errors="replace") for line in lines]
        last_lines.extend(decoded)
        with contextlib.suppress(OSError, ValueError):  # nobody reads our stderr any more
            sys.stderr.writelines(f"{line}\n" for line in decoded)
            sys.stderr.flush()

    async def relay() -> None:
        pending = b""
        while chunk := await reader.read(MAX_LINE_BYTES):
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                lines, pending = [*lines, pending], b""
            pass_on(lines)
        if pending:
            pass_on([pending])

    relaying = asyncio.create_task(relay())
    try:
        yield writing
        await asyncio.wait({relaying}, timeout=1)
    finally:
        relaying.cancel()
        transport.close()
