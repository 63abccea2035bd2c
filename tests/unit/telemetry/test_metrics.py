"""Metrics: several pipelines of a process have their own, and objects' lines are counted."""

from __future__ import annotations

from sqs2pg.errors import Stage
from sqs2pg.message import Outcome, RowChanges
from sqs2pg.telemetry.metrics import Metrics


def test_two_pipelines_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.requests.reply(10, 0.1)
    one.count_fault(Stage.DECODE, "not_json")
    one.count_released(3)
    one.in_flight_messages.set_function(lambda: 7)
    read = other.registry.get_sample_value
    assert one.registry.get_sample_value("sqs2pg_messages_received_total") == 10
    assert one.registry.get_sample_value("sqs2pg_in_flight_messages") == 7
    assert read("sqs2pg_messages_received_total") == 0
    assert read("sqs2pg_messages_outcome_total", {"outcome": "released"}) == 0
    assert read("sqs2pg_faults_total", {"stage": "decode", "code": "not_json"}) is None
    assert str(read("sqs2pg_in_flight_messages")) == "nan"


def test_lines_of_objects_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    lines = [Outcome.WRITTEN] * 3 + [Outcome.QUARANTINED]
    metrics.count_objects([], lines)
    read = metrics.registry.get_sample_value
    assert read("sqs2pg_object_lines_total", {"outcome": "written"}) == 3
    assert read("sqs2pg_object_lines_total", {"outcome": "quarantined"}) == 1
    assert not read("sqs2pg_object_lines_total", {"outcome": "duplicate"})


def test_rows_are_counted_by_what_they_did() -> None:
    metrics = Metrics()
    changes = RowChanges(inserted=1, updated=2, superseded=3, ignored=0)
    for _ in range(2):
        metrics.count_rows(changes)
    read = metrics.registry.get_sample_value
    counted = [read(f"sqs2pg_rows_{name}_total") for name in RowChanges._fields]
    assert counted == [2 * count for count in changes]
