"""Image, compose, workflows, dashboards, rules and the bill of materials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from deploy.check.ours import ROOT
from deploy.check.report import Report

BIN = Path(sys.executable).parent


def check(report: Report) -> None:
    """Check the files that have a linter of their own."""
    strict = ("hadolint", "--failure-threshold", "style")
    report.check("hadolint: Dockerfile", run(*strict, "Dockerfile"))
    schema = ("check-jsonschema", "--builtin-schema")
    report.check("schema: compose.yaml", run(*schema, "vendor.compose-spec", "compose.yaml"))
    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        name = str(file.relative_to(ROOT))
        report.check(f"schema: {name}", run(*schema, "vendor.github-workflows", name))
        report.check(f"actionlint: {name}", run("actionlint", "-shellcheck=", "-pyflakes=", name))
    dependabot = ".github/dependabot.yml"
    if (ROOT / dependabot).is_file():
        report.check(f"schema: {dependabot}", run(*schema, "vendor.dependabot", dependabot))
    for file in sorted((ROOT / "deploy/grafana").glob("*.json")):
        report.check(f"JSON: {file.relative_to(ROOT)}", _json(file))
    for file in sorted((ROOT / "deploy/prometheus").glob("*.yml")):
        report.check(f"YAML: {file.relative_to(ROOT)}", _yaml(file))
    report.check("bill of materials of requirements/runtime.txt (CycloneDX 1.6)", _materials())
    broken = ROOT / "build/Dockerfile"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("FROM python\nRUN cd /x\n")
    report.refuses("an image without a tag", lambda: run(*strict, str(broken)))
    wrong = ROOT / "build/workflow.yml"
    wrong.write_text("on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: x, usse: y}]}}\n")
    report.refuses("a misspelt step of a workflow", lambda: run("actionlint", str(wrong)))


def run(*command: str) -> Iterator[str]:
    """Yield a linter's findings."""
    done = subprocess.run(  # noqa: S603  tools of this environment
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield from (done.stdout + done.stderr).strip().splitlines()


def _json(file: Path) -> Iterator[str]:
    try:
        json.loads(file.read_text())
    except json.JSONDecodeError as error:
        yield str(error)


def _yaml(file: Path) -> Iterator[str]:
    try:
        yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        yield str(error)


def _materials() -> Iterator[str]:
    out = ROOT / "build/sbom.json"
    out.parent.mkdir(exist_ok=True)
    yield from run(
        *("cyclonedx-py", "requirements", "--output-reproducible", "--pyproject", "pyproject.toml"),
        *("--spec-version", "1.6", "--validate", "-o", str(out), "requirements/runtime.txt"),
    )
    if not out.is_file() or len(json.loads(out.read_text()).get("components", [])) < 10:
        yield "it names fewer packages than are installed"
