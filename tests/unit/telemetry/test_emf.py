"""CloudWatch's lines: the counts since the previous line, in its embedded metric format."""

from __future__ import annotations

import json
from typing import Any

from sqs2pg.errors import Stage
from sqs2pg.message import Outcome
from sqs2pg.telemetry.emf import EmfLines
from sqs2pg.telemetry.metrics import Metrics


def line(lines: EmfLines) -> dict[str, Any]:
    text = lines.next_line()
    assert "\n" not in text
    made: dict[str, Any] = json.loads(text)
    return made


def test_a_line_has_what_came_since_the_one_before() -> None:
    metrics = Metrics()
    lines = EmfLines(metrics.registry, "logins")
    metrics.requests.reply(10, 0.1)
    metrics.count_fault(Stage.DECODE, "not_json", 2)
    metrics.lag_seconds.observe(2.0)
    metrics.lag_seconds.observe(4.0)
    first = line(lines)
    assert first["pipeline"] == "logins"
    assert (first["received"], first["faults"], first["written"]) == (10, 2, 0)
    assert first["lag_seconds"] == 3.0
    metrics.requests.reply(5, 0.1)
    second = line(lines)
    assert (second["received"], second["faults"]) == (5, 0)
    assert "lag_seconds" not in second, "no batch since"


def test_every_metric_of_a_line_is_declared_with_a_unit() -> None:
    made = line(EmfLines(Metrics().registry, "logins"))
    [directive] = made["_aws"]["CloudWatchMetrics"]
    declared = {metric["Name"] for metric in directive["Metrics"]}
    assert declared == {"received", "faults", *(outcome.value for outcome in Outcome)}
    assert directive["Dimensions"] == [["pipeline"]]
    assert declared == set(made) - {"_aws", "pipeline"}
    assert {metric["Unit"] for metric in directive["Metrics"]} <= {"Count", "Seconds"}
    assert 1.7e12 < made["_aws"]["Timestamp"] < 1e14, "milliseconds"
