"""How readable the tree is, counted: functions, hops, layers, and where SQL on each table stands.

    python -m benchmarks.structure [--json] [--way]

Static: read from the sources. `--way` also sends one page through a service of its own, endpoint and worker
in this process, counts the functions that it enters and lists their files.

The files of a way are those of the domain: what a reader follows. The files of the common base (`core/`,
`database/`, `timing/`: values, batches, transactions, measurements) are called at many places for one
expression each, and counted separately. So are those that only threads enter.

A file is entered again if a function of another file calls it after a third file was entered. A function that
calls one step after the other leaves its own file for none of them, and is still there for the functions that
it has defined and passed on.
"""

import argparse
import ast
import asyncio
import json
import re
import statistics
import sys
import tempfile
import threading
import tomllib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx2

from crawlscope.api.app import create_app
from crawlscope.core.settings import Settings
from crawlscope.database import schema
from crawlscope.database.connect import connected_database
from crawlscope.processes.index_process import embedded_indexes
from crawlscope.processes.parts import service_parts
from crawlscope.processes.worker import index_pages as worker_job
from crawlscope.processes.worker.process import run_worker

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "crawlscope"
NO_ENTRIES = {"__pycache__", "__init__.py", "__main__.py", "py.typed"}
SECRET = "a-secret-of-this-measurement"


@dataclass(frozen=True)
class Function:
    name: str
    folder: str
    lines: int
    called_once: bool
    """Private, and named once besides its definition."""

    @property
    def private(self) -> bool:
        return self.name.startswith("_") and not self.name.startswith("__")


@dataclass
class Way:
    """The functions that a page enters: in the API process until its 202, in a worker until its outcome is
    committed."""

    route: list[str] = field(default_factory=list)
    """Files of the domain in the order in which they are entered first."""
    functions: int = 0
    entered_again: list[str] = field(default_factory=list)
    """Calls from another file into a file that was left, with that other file."""
    turns: int = 0
    """Calls within a file of the route after those of another file, and calls that enter one again."""
    base: list[str] = field(default_factory=list)
    """Files of the common base."""
    base_functions: int = 0
    turns_with_base: int = 0
    """The same with the files of the base as parts of the route."""
    in_threads: list[str] = field(default_factory=list)
    """Files of the domain that only threads enter."""


BASE = ("core/", "database/", "timing/")
COMPREHENSIONS = frozenset(["<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"])
"""Parts of the function that they are in; newer versions of Python do not call them."""
ON_THE_WAY: ContextVar[Way | None] = ContextVar("on_the_way", default=None)


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "versions" not in path.parts)


def functions() -> list[Function]:
    found = []
    for path in sources():
        text = path.read_text()
        words = re.findall(r"\b_[a-z]\w*", text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                once = not node.name.startswith("__") and words.count(node.name) == 2
                found.append(Function(node.name, folder_of(path), lines, node.name.startswith("_") and once))
    return found


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules_in_no_layer() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [
        f"{container}.{name.strip()}"
        for contract in contracts
        if contract["type"] == "layers"
        for container in contract["containers"]
        for layer in contract["layers"]
        for name in re.split(r"[|:]", layer)
    ]
    names = [module_name(path) for path in sources()]
    known = ("crawlscope", "crawlscope.__main__")
    return [
        name
        for name in names
        if name not in known and not any(name == layer or name.startswith(f"{layer}.") for layer in layers)
    ]


def sql_by_table() -> dict[str, list[str]]:
    """Table → modules that name it, through the name that the sources give it."""
    named = re.compile(r"(\w+) = (?:models\.)?table_of\((?:models\.)?(\w+)\)")
    aliases: dict[str, set[str]] = defaultdict(set)
    texts = {module_name(path): path.read_text() for path in sources()}
    for text in texts.values():
        for alias, model in named.findall(text):
            aliases[model].add(alias)
    places: dict[str, list[str]] = {}
    for model, names in sorted(aliases.items()):
        columns = re.compile(rf"\b(?:{'|'.join(names)})\b|\bmodels\.{model}\b")
        own = re.compile(rf"(?:import|from) .*\b(?:{'|'.join(names)})\b|= (?:models\.)?table_of")
        places[model] = [
            name
            for name, text in texts.items()
            if not name.startswith("crawlscope.models")
            and _names_table(text, model, columns)
            and (own.search(text) or f"models.{model}" in text)
        ]
    return places


def _names_table(text: str, model: str, columns: re.Pattern[str]) -> bool:
    """An alias may stand for another table elsewhere: the module's own definition counts."""
    defined = dict(re.findall(r"(\w+) = (?:models\.)?table_of\((?:models\.)?(\w+)\)", text))
    return any(defined.get(found.group(), model) == model for found in columns.finditer(text))


def static_figures() -> dict[str, Any]:
    found = functions()
    lines = [each.lines for each in found]
    tables = sql_by_table()
    folders = {each.folder: [one for one in found if one.folder == each.folder] for each in found}
    return {
        "entries_at_the_top": sum(path.name not in NO_ENTRIES for path in PACKAGE.iterdir()),
        "modules": len(sources()),
        "modules_in_no_layer": modules_in_no_layer(),
        "functions": len(found),
        "median_lines": statistics.median(lines),
        "p90_lines": statistics.quantiles(lines, n=10)[8],
        "longest_lines": max(lines),
        "private_share": round(sum(each.private for each in found) / len(found), 3),
        "private_called_once_share": round(sum(each.called_once for each in found) / len(found), 3),
        "functions_by_folder": {
            folder: {
                "functions": len(its),
                "private_called_once_share": round(sum(each.called_once for each in its) / len(its), 3),
            }
            for folder, its in folders.items()
        },
        "sql_by_table": tables,
        "folders_by_table": {
            table: sorted({name.split(".")[1] for name in modules}) for table, modules in tables.items()
        },
    }


class Trace:
    """Notes on its way every function of the package that is entered, in this thread and in others."""

    def __init__(self) -> None:
        self._functions: dict[int, set[tuple[str, str]]] = defaultdict(set)
        self._frames = set[FrameType]()
        self._last: dict[int, tuple[str, str]] = {}
        self._entered = dict[int, str]()
        """The file of the domain that another one of it has called last."""
        self._giver = dict[int, str]()
        """The file of the domain that has called the base last: the base may go on in a task."""

    def pass_over(self, frame: FrameType | None) -> None:
        """The functions that were entered before the way began, and go on."""
        while frame:
            self._frames.add(frame)
            frame = frame.f_back

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        path, way = frame.f_code.co_filename, ON_THE_WAY.get()
        if event != "call" or way is None or not path.startswith(str(PACKAGE)):
            return
        if frame in self._frames or frame.f_code.co_name in COMPREHENSIONS:  # a coroutine that goes on
            return
        self._frames.add(frame)
        place = path[len(str(PACKAGE)) + 1 :]
        if threading.current_thread() is threading.main_thread():
            self._note_caller(way, place, frame)
            self._note(way, place, frame.f_code.co_qualname)
        elif not place.startswith(BASE) and place not in (*way.route, *way.in_threads):
            way.in_threads.append(place)

    def _note_caller(self, way: Way, place: str, frame: FrameType) -> None:
        function = frame.f_code.co_qualname
        running = [(each, name) for each, name in callers_of(frame) if not each.startswith(BASE)]
        caller = running[0][0] if running else self._giver.get(id(way), "")
        if place.startswith(BASE):
            self._giver[id(way)] = caller
        elif place != caller and (place, function.rpartition(".<locals>.")[0]) not in running:
            if place in way.route and place != self._entered.get(id(way)):
                way.entered_again.append(f"{place} {function}, from {caller}")
            self._entered[id(way)] = place

    def _note(self, way: Way, place: str, function: str) -> None:
        functions, of_base = self._functions[id(way)], place.startswith(BASE)
        last_of_domain, last = self._last.get(id(way), ("", ""))
        way.turns_with_base += place in (*way.route, *way.base) and place != last
        way.turns += place in way.route and place != last_of_domain
        files = way.base if of_base else way.route
        if place not in files:
            files.append(place)
        self._last[id(way)] = last_of_domain if of_base else place, place
        if not function.endswith("<lambda>") and (place, function) not in functions:
            functions.add((place, function))
            if of_base:
                way.base_functions += 1
            else:
                way.functions += 1


def callers_of(frame: FrameType) -> Iterator[tuple[str, str]]:
    """The functions of the package that wait for this one in its task, with their files: its caller first."""
    while back := frame.f_back:
        if back.f_code.co_filename.startswith(str(PACKAGE)):
            yield back.f_code.co_filename[len(str(PACKAGE)) + 1 :], back.f_code.co_qualname
        frame = back


@contextmanager
def on(way: Way) -> Iterator[None]:
    """Everything that the block calls, with its tasks and threads, belongs to the way."""
    token = ON_THE_WAY.set(way)
    try:
        yield
    finally:
        ON_THE_WAY.reset(token)


async def way_of_a_page() -> dict[str, Way]:
    ways, trace = {"endpoint": Way(), "worker": Way()}, Trace()
    index_page = worker_job._index_page  # noqa: SLF001 - where a worker begins with a page

    async def traced_index_page(*arguments: Any) -> None:
        trace.pass_over(sys._getframe())  # noqa: SLF001
        with on(ways["worker"]):
            await index_page(*arguments)

    with tempfile.TemporaryDirectory(prefix="crawlscope-structure-") as folder:
        settings = Settings(_env_file=None, data_dir=Path(folder), api_secret=SECRET, workers=1)
        async with connected_database(settings) as database:
            await schema.upgrade(database)
        async with embedded_indexes(settings.data_dir), service_parts(settings) as parts:
            transport = httpx2.ASGITransport(app=create_app(parts))
            headers = {"X-API-Secret": SECRET}
            client = httpx2.AsyncClient(transport=transport, base_url="http://a", headers=headers)
            with profiled(trace):  # from the beginning, because threads that run already would not be
                async with client as http, worker_running(settings):
                    await _send(http, "first")  # what happens once per process is not on a page's way
                    await _settled(http, "first")
                    with (
                        patch.object(worker_job, "_index_page", traced_index_page),
                        patch.object(worker_job, "INLINE_CHARACTERS", 0),
                    ):
                        with on(ways["endpoint"]):
                            await _send(http, "second")
                        await _settled(http, "second")
    for way in ways.values():
        way.in_threads = [place for place in way.in_threads if place not in way.route]
    return ways


@asynccontextmanager
async def worker_running(settings: Settings) -> AsyncIterator[None]:
    """Until the end of the block: a worker that outlives its database waits for it for ever."""
    stopping = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, {"index"}, stopping))
    try:
        yield
    finally:
        stopping.set()
        await worker


@contextmanager
def profiled(note: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def _send(http: httpx2.AsyncClient, crawl_id: str) -> None:
    document = {
        "markdown": f"# {crawl_id}\n\nA page.",
        "metadata": {"sourceURL": f"https://{crawl_id}.example/"},
    }
    event = {"success": True, "type": "crawl.page", "id": crawl_id, "data": [document], "metadata": {}}
    event["webhookId"] = str(uuid4())
    answer = await http.post("/api/webhook/firecrawl", json=event)
    answer.raise_for_status()


async def _settled(http: httpx2.AsyncClient, crawl_id: str) -> None:
    for _ in range(600):
        if (await http.get(f"/api/metrics/crawls/{crawl_id}")).json()["pages_indexed"]:
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the page was not indexed within a minute")


def report(figures: dict[str, Any], ways: dict[str, Way]) -> str:
    lines = [
        f"{name.replace('_', ' '):28} {value}"
        for name, value in figures.items()
        if not isinstance(value, dict | list)
    ]
    in_no_layer = figures["modules_in_no_layer"]
    lines.append(f"{'modules in no layer':28} {len(in_no_layer)}  {' '.join(in_no_layer)}")
    lines.append("\nFunctions by folder, and the share that is private and called once")
    for folder, counted in figures["functions_by_folder"].items():
        lines.append(f"  {folder:20} {counted['functions']:5} {counted['private_called_once_share']:7}")
    lines.append("\nSQL on a table: modules in folders")
    for table, modules in figures["sql_by_table"].items():
        folders = figures["folders_by_table"][table]
        lines.append(f"  {table:20} {len(modules):2} in {len(folders)}: {', '.join(folders)}")
    for name, way in ways.items():
        lines.append(
            f"\nA page's way, {name}: {way.functions} functions in {len(way.route)} files, "
            f"{len(way.entered_again)} entered again, {way.turns} turns; "
            f"in {len(way.base)} files of the base {way.base_functions} functions, "
            f"and with those {way.turns_with_base} turns; {len(way.in_threads)} files in threads"
        )
        lines += [f"  {place}" for place in way.route]
        lines += [f"  again: {call}" for call in way.entered_again]
        lines += [
            f"  {title}: {' '.join(files)}"
            for title, files in (("base", way.base), ("threads", way.in_threads))
        ]
    if ways:
        together = {place for way in ways.values() for place in way.route}
        lines.append(f"\nBoth ways: {len(together)} files")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", action="store_true", help="also send a page through a service")
    arguments = parser.parse_args()
    figures = static_figures()
    ways = asyncio.run(way_of_a_page()) if arguments.way else {}
    if arguments.json:
        print(json.dumps(figures | {name: asdict(way) for name, way in ways.items()}, indent=2))
    else:
        print(report(figures, ways))


if __name__ == "__main__":
    main()
