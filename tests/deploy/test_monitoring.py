"""Alerts and dashboard: Prometheus accepts them, and they use metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crawlscope.api.http.exposition import exposition
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.meters import Total
from tests.support.documentation import ROOT, Section, page

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "crawlscope.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((PROMETHEUS / "crawlscope.rules.yml").read_text(encoding="utf-8"))
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is missing; on Debian and Ubuntu: apt-get install prometheus",
)


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
