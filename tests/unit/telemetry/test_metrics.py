"""Metrics of several pipelines in one process: each has its own numbers."""

from __future__ import annotations

from sqs2pg.errors import Stage
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
