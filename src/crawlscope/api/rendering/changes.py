"""The pages that differ between two crawls, and the differences in the text of one page, for a terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crawlscope.api.rendering.words import duration, plain, shorten_middle
from crawlscope.core.vocabulary import ChangeKind
from crawlscope.insights.schemas import DiffHunk, DiffLine, PageChange, PageChangesResponse, PageVersion

EXAMPLES = 5
"""Pages shown of each kind."""
URL_WIDTH = 56
KIND_STYLES = {
    ChangeKind.ADDED: "green",
    ChangeKind.REMOVED: "red",
    ChangeKind.CHANGED: "cyan",
    ChangeKind.NEWLY_FAILED: "bold red",
    ChangeKind.RECOVERED: "green",
    ChangeKind.SLOWER: "yellow",
}
LINE_STYLES = {"same": "dim", "removed": "red", "added": "green"}
LINE_SIGNS = {"same": " ", "removed": "-", "added": "+"}


def render_changes(found: PageChangesResponse) -> RenderableType:
    """Each kind with its number and the first pages."""
    if not found.total:
        return Text(f"No page differs{f'; {found.note}' if found.note else ''}.", style="dim")
    table = Table(box=None, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column("pages", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for kind in ChangeKind:
        number, examples = found.counts[kind], [each for each in found.changes if each.kind is kind]
        shown = [Text(shorten_middle(plain(each.url), URL_WIDTH)).append(_detail(each)) for each in examples]
        if number > len(shown):
            shown.append(Text(f"and {number - len(shown):,} more", style="dim"))
        if number:
            name = Text(kind.replace("_", " "), style=KIND_STYLES[kind])
            table.add_row(name, f"{number:,}", Text("\n").join(shown))
    return Group(table, Text(found.note, style="dim")) if found.note else table


def render_page_changes(found: PageChangesResponse, url: str) -> RenderableType:
    kinds = ", ".join(change.kind.replace("_", " ") for change in found.changes) or "not changed"
    parts: list[RenderableType] = [Text.assemble((plain(url), "bold"), f"  {kinds}")]
    if found.changes:
        change = found.changes[0]
        parts += [_version("A", change.now), _version("B", change.before)]
    if found.note:
        parts.append(Text(plain(found.note), style="yellow"))
    if found.diff:
        lines = f"{found.diff.added:,} lines added, {found.diff.removed:,} removed, from B to A"
        parts += [Text(), Text(lines, style="dim")]
        for hunk in found.diff.hunks:
            parts += _hunk(hunk)
        if found.diff.is_cut:
            parts.append(Text("The texts are too long to be shown as a whole.", style="yellow"))
    return Group(*parts)


def _detail(change: PageChange) -> Text:
    now, before = change.now, change.before
    if change.kind is ChangeKind.NEWLY_FAILED and now:
        return Text(f"  {plain(now.error_code or 'failed')}", style="dim")
    if change.kind is ChangeKind.SLOWER and now and before:
        return Text(f"  {duration(before.total_ms)} → {duration(now.total_ms)}", style="dim")
    return Text()


def _version(letter: str, version: PageVersion | None) -> Text:
    if version is None:
        return Text(f"{letter}  no such page", style="dim")
    words = [version.state.value, plain(version.error or version.title or "")]
    return Text(f"{letter}  {', '.join(word for word in words if word)}, {duration(version.total_ms)}")


def _hunk(hunk: DiffHunk) -> Iterator[Text]:
    yield Text(f"@@ line {hunk.before_line:,} of B, {hunk.now_line:,} of A", style="magenta")
    for line in hunk.lines:
        yield _line(line)


def _line(line: DiffLine) -> Text:
    """Control characters are dropped piece by piece, so that the marks stay in place."""
    shown = Text(f"{LINE_SIGNS[line.kind]} ", style=LINE_STYLES[line.kind])
    place = 0
    for mark in line.marks:
        shown.append(_printable(line.text[place : mark.begin]))
        shown.append(_printable(line.text[mark.begin : mark.end]), style="reverse")
        place = mark.end
    return shown.append(_printable(line.text[place:]))


def _printable(text: str) -> str:
    return "".join(character if character == " " else plain(character) for character in text)
