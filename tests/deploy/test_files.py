"""The files for deployment, each by its own linter."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crawlscope.core.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
SETTINGS = {ENV_PREFIX + name.upper() for name in Settings.model_fields}


def lint(*command: str | Path) -> None:
    program, *arguments = command
    run = subprocess.run(
        [Path(sys.executable).with_name(str(program)), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_dockerfile_has_no_findings() -> None:
    lint("hadolint", ROOT / "Dockerfile")


def test_the_compose_file_follows_its_schema() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed here")
@pytest.mark.parametrize("profile", [[], ["--profile", "firecrawl"]], ids=["alone", "with-firecrawl"])
def test_compose_reads_the_file(tmp_path: Path, profile: list[str]) -> None:
    """It checks what a schema cannot: variables, profiles, dependencies. Debian's version knows no `name`."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(re.sub(r"^name: .*", "", COMPOSE.read_text(), flags=re.MULTILINE))
    secrets = ("POSTGRES_PASSWORD", "QDRANT_API_KEY", "CRAWLSCOPE_API_SECRET")
    run = subprocess.run(
        ["docker-compose", *profile, "config", "--quiet"],
        cwd=tmp_path,
        env=os.environ | dict.fromkeys(secrets, "secret"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_follow_their_schema(workflow: Path) -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)


def test_the_manifests_follow_the_schemas_of_kubernetes() -> None:
    lint("kubernetes-validate", "--strict", *sorted(ROOT.glob("deploy/kubernetes/*.yaml")))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    """With a program that exists here: systemd checks that too."""
    for unit in ROOT.glob("deploy/systemd/*.service"):
        text = unit.read_text(encoding="utf-8").replace("/opt/crawlscope/bin/crawlscope", "/bin/true")
        (tmp_path / unit.name.replace("@", "@1")).write_text(text, encoding="utf-8")
    run = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr


def test_every_setting_in_the_files_exists() -> None:
    files = [
        COMPOSE,
        ROOT / "Dockerfile",
        *(ROOT / "deploy").rglob("*.service"),
        *(ROOT / "deploy").rglob("*.yaml"),
    ]
    named = {name for each in files for name in re.findall(rf"\b{ENV_PREFIX}[A-Z_]+", each.read_text())}
    assert named
    assert named <= SETTINGS


def test_a_worker_ends_by_its_own_limit_of_memory_before_that_of_its_pod() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/crawlscope.yaml").read_text()))
    [settings] = [each["data"] for each in documents if each["kind"] == "ConfigMap"]
    [worker] = [each for each in documents if each["metadata"]["name"] == "crawlscope-worker"]
    limit = worker["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert int(settings["CRAWLSCOPE_WORKER_MEMORY_BYTES"]) < int(limit.removesuffix("Gi")) * 1024**3


def test_every_container_of_ours_runs_as_an_ordinary_user_on_a_read_only_root() -> None:
    ours = [each for each in yaml.safe_load(COMPOSE.read_text())["services"].values() if "build" in each]
    assert len(ours) == 3
    assert all(each["read_only"] and each["cap_drop"] == ["ALL"] for each in ours)
    pods = [
        each["spec"]["template"]["spec"]
        for each in yaml.safe_load_all((ROOT / "deploy/kubernetes/crawlscope.yaml").read_text())
        if each["kind"] == "Deployment"
    ]
    containers = [each for pod in pods for each in [*pod.get("initContainers", ()), *pod["containers"]]]
    assert len(containers) == 3
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in containers)
