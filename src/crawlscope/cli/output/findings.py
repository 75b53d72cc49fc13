"""What the doctor found, on a terminal."""

from collections.abc import AsyncIterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.words import plain
from crawlscope.cli.doctor import Finding

PART_WIDTH = 12


async def print_findings(console: Console, findings: AsyncIterator[Finding]) -> int:
    """Each as it is made; returns how many are bad."""
    failed = 0
    async for finding in findings:
        console.print(render_finding(finding))
        failed += not finding.ok
    return failed


def render_finding(finding: Finding) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=6, no_wrap=True)
    line.add_column(width=PART_WIDTH, no_wrap=True, style="bold")
    line.add_column(overflow="fold")
    mark = Text("ok", style="green") if finding.ok else Text("failed", style="bold red")
    line.add_row(mark, finding.part, Text(plain(finding.words)))
    return line
