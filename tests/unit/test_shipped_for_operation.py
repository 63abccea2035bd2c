"""Dashboards and alert rules name only metrics that exist; every alert has a runbook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "sqs2pg.json"
RUNBOOK = ROOT / "docs" / "runbook.md"
METRIC = re.compile(r"\bsqs2pg_[a-z0-9_]+")


def names() -> set[str]:
    """Every name under which `/metrics` has samples."""
    found = set()
    for family in Metrics().registry.collect():
        found.add(family.name)
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        found |= {family.name + suffix for suffix in suffixes.get(family.type, ())}
    return found


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel.get("targets", [])]


def test_the_dashboard_names_only_metrics_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    used = set()
    for panel in dashboard["panels"]:
        for expression in expressions(panel):
            found = set(METRIC.findall(expression))
            assert found, panel["title"]
            used |= found
    assert used <= names(), used - names()
    for variable in dashboard["templating"]["list"]:
        assert set(METRIC.findall(json.dumps(variable))) <= names()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert dashboard["uid"] == "sqs2pg"


def test_every_metric_of_the_design_is_on_the_dashboard() -> None:
    text = DASHBOARD.read_text()
    for name in names():
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        if base not in {"sqs2pg_started_timestamp_seconds", "sqs2pg_watch_timestamp_seconds"}:
            assert base in text, base


def test_no_two_panels_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_the_rules_name_only_metrics_that_there_are() -> None:
    used = set(METRIC.findall(RULES.read_text()))
    assert used
    assert used <= names(), used - names()


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_has_a_severity_a_runbook_and_a_test(alert: str) -> None:
    block = RULES.read_text().split(f"- alert: {alert}\n", 1)[1].split("- alert:", 1)[0]
    assert re.search(r"severity: (page|ticket)", block)
    assert "summary:" in block
    anchor = re.search(r"runbook_url: https://\S+/docs/runbook\.md#(\S+)", block)
    assert anchor
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert anchor[1] in {heading.lower().replace(" ", "-") for heading in headings}
    assert f"`{alert}`" in RUNBOOK.read_text()
    tested = (RULES.parent / "rules_test.yml").read_text()
    cases = re.findall(rf"alertname: {alert}\b", tested)
    assert len(cases) >= 2, "fires, and is silent"
