"""Alerts and dashboard: Prometheus accepts them, and they use metrics that exist."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crawlscope.api.http.exposition import exposition
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.meters import Total
from tests.support.documentation import ROOT, Section, page, sections
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.postgres import ask
from tests.support.stack import API_SECRET, Stack, running_stack

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "crawlscope.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((PROMETHEUS / "crawlscope.rules.yml").read_text(encoding="utf-8"))
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is missing; on Debian and Ubuntu: apt-get install prometheus",
)


STEPS = ["Meaning", "Confirm", "Do", "Over when"]
"""The steps of each runbook."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with FakeEmbeddingServer() as embedder:
        folder = tmp_path_factory.mktemp("runbooks") / "data"
        with running_stack(folder, EMBEDDER="tei", EMBEDDER_URL=embedder.url) as running:
            yield running


def run_promtool(*arguments: str | Path) -> None:
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def dashboard_queries() -> list[str]:
    return [
        target["expr"].replace("$__rate_interval", "5m").replace("$job", "crawlscope")
        for panel in panels()
        for target in panel["targets"]
    ]


def exposed() -> set[str]:
    """The names of all samples that `/metrics` can have."""
    gauges = {(gauge, ("x",) * len(gauge.labels)): 1.0 for gauge in conventions.GAUGES}
    totals = {
        (metric, ("x",) * len(metric.labels)): Total(1.0, [1] * (len(metric.buckets) + 1))
        for metric in conventions.COUNTED
    }
    text, _ = exposition("", gauges, totals)
    return {
        sample.name for family in text_string_to_metric_families(text.decode()) for sample in family.samples
    }


@promtool
def test_prometheus_accepts_configuration_and_alerts(tmp_path: Path):
    for file in PROMETHEUS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "crawlscope-secret").write_text("secret")
    run_promtool("check", "config", tmp_path / "prometheus.yml")
    run_promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "crawlscope.rules.yml")


@promtool
def test_alerts_fire_when_they_should_and_only_then():
    run_promtool("test", "rules", PROMETHEUS / "crawlscope.rules.test.yml")


@promtool
def test_prometheus_accepts_every_query_of_the_dashboard(tmp_path: Path):
    rules = [{"record": f"q:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_promtool("check", "rules", file)


def test_every_alert_is_tested():
    tests = (PROMETHEUS / "crawlscope.rules.test.yml").read_text(encoding="utf-8")
    alerts = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
    assert [alert for alert in alerts if f'alertname="{alert}"' not in tests] == []


def test_every_alert_has_a_runbook_and_no_other_exists():
    linked = {
        rule["alert"]: rule["annotations"].get("runbook_url")
        for group in RULES["groups"]
        for rule in group["rules"]
    }
    assert linked == {alert: f"docs/runbooks.md#{alert.lower()}" for alert in linked}
    runbooks = sections(page("docs/runbooks.md"), 2)
    assert [runbook.title for runbook in runbooks] == list(linked)
    for runbook in runbooks:
        assert [*re.findall(r"\*\*(Meaning|Confirm|Do|Over when)\b", runbook.text)] == STEPS, runbook.title
        assert runbook.blocks("sh"), runbook.title


@pytest.mark.slow
@pytest.mark.parametrize("runbook", sections(page("docs/runbooks.md"), 2), ids=lambda each: each.title)
def test_the_commands_of_a_runbook_run(runbook: Section, stack: Stack):
    """A `grep` that finds nothing is an answer, too."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "URL": stack.url,
        "SECRET": API_SECRET,
        "CRAWLSCOPE_API_SECRET": API_SECRET,
        "CRAWLSCOPE_DATA_DIR": str(stack.data_dir),
        "CRAWLSCOPE_PORT": stack.url.rpartition(":")[2],
    }
    for block in runbook.blocks("sh"):
        for command in block.splitlines():
            run = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert run.returncode == 0 or "| grep" in command, f"{command}\n{run.stdout}{run.stderr}"
            assert not run.stderr, command
    for query in runbook.blocks("sql"):
        ask(EmbeddedPostgres(stack.data_dir).url, query)


def test_alerts_and_dashboard_use_metrics_that_exist():
    rules = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    used = set(re.findall(r"\bcrawlscope_\w+", "\n".join([*rules, *dashboard_queries()])))
    assert used <= exposed()
    assert len(used) > 25


def test_every_metric_is_documented_and_no_other():
    rows = Section("", page("docs/operations.md")).rows("metric")
    documented = set(re.findall(r"`(crawlscope_\w+)", "\n".join(row[0] for row in rows)))
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed() if name.startswith("crawl")}
    assert documented == shown


def test_the_panels_of_the_dashboard_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] for panel in panels())
