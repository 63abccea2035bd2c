"""One log line per batch and one per fault, of allowed fields only, and never a flood."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from sqs2pg.errors import PermanentFault, Stage, TransientFault
from sqs2pg.telemetry.batch_log import BATCH_LINES_MAX, BatchLog, BatchReport
from sqs2pg.telemetry.log import ALLOWED
from sqs2pg.telemetry.log_sampling import KINDS_MAX, LINES_MAX

FAULT = PermanentFault("not_json", "user_id")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def report(**changes: Any) -> BatchReport:
    times = {"decode_s": 0.001, "mask_s": 0.002, "write_s": 0.25, "commit_s": 0.0125}
    return BatchReport("b-1", 0.0, 10, **({"written": 9, "quarantined": 1} | times | changes))


def test_a_batch_is_one_line_with_counts_and_times() -> None:
    with capture_logs() as lines:
        BatchLog().committed(report(lag_s=1.5, trace_id="ab"))
    assert lines == [
        {
            "event": "batch",
            "log_level": "info",
            "batch": "b-1",
            "messages": 10,
            "written": 9,
            "duplicate": 0,
            "quarantined": 1,
            "decode_ms": 1.0,
            "mask_ms": 2.0,
            "write_ms": 250.0,
            "commit_ms": 12.5,
            "lag_s": 1.5,
            "trace_id": "ab",
        }
    ]
    assert set(lines[0]) - {"log_level"} <= ALLOWED, (
        "fields that are not on the list would be dropped"
    )


def test_a_fault_is_one_line_with_its_code_and_message_id_when_its_batch_is_committed() -> None:
    batch_log = BatchLog(batch_lines=False)
    with capture_logs() as lines:
        batch_log.quarantined("b-1", [("m-1", FAULT.stage, FAULT.code)])
        assert not lines, "not before: the batch may come back"
        batch_log.committed(report())
        batch_log.committed(report())
    assert lines == [
        {
            "event": "message quarantined",
            "log_level": "warning",
            "code": "not_json",
            "stage": "decode",
            "message_id": "m-1",
            "batch": "b-1",
        }
    ]
    assert set(lines[0]) - {"log_level"} <= ALLOWED


def test_a_quarantine_that_did_not_commit_is_not_logged() -> None:
    batch_log = BatchLog(batch_lines=False)
    away = TransientFault("away", code="postgres_08006")
    with capture_logs() as lines:
        batch_log.quarantined("b-1", [("m-1", FAULT.stage, FAULT.code)])
        batch_log.released(report(), away)
        batch_log.committed(report())
        batch_log.quarantined("b-1", [("m-1", FAULT.stage, FAULT.code)])
        batch_log.committed(report(written=9, duplicate=1, quarantined=0))
        for number in range(1_000):  # tried again under other keys: neither committed nor released
            batch_log.quarantined(f"c-{number}", [("m-1", FAULT.stage, FAULT.code)])
        batch_log.committed(BatchReport("c-0", 0.0, 10, written=9, quarantined=1))
    assert lines == []


def test_a_hundred_thousand_faults_are_a_few_lines_and_every_one_is_counted() -> None:
    clock = Clock()
    batch_log = BatchLog(batch_lines=False, clock=clock)
    with capture_logs() as lines:
        for number in range(100_000):
            clock.now = 100.0 + number / 100_000 * 60
            batch_log.quarantined("b-1", [(f"m-{number}", FAULT.stage, FAULT.code)])
            if number % 1_000 == 999:
                batch_log.committed(report(quarantined=1_000))
        batch_log.flush(end=True)
    assert len(lines) < 50
    told = sum(line["event"] == "message quarantined" for line in lines)
    more = sum(line.get("count", 0) for line in lines)
    assert told + more == 100_000
    assert {line["event"] for line in lines} == {"message quarantined", "more like this"}
    assert {(line["code"], line["stage"]) for line in lines} == {("not_json", "decode")}


def test_what_was_held_back_is_told_by_its_kind_and_of_many_kinds_together() -> None:
    batch_log = BatchLog(batch_lines=False)
    with capture_logs() as lines:
        for code in [FAULT.code, *(f"c{number}" for number in range(KINDS_MAX))]:
            noted = [(f"m-{number}", FAULT.stage, code) for number in range(LINES_MAX + 1)]
            batch_log.quarantined("b-1", noted)
            batch_log.committed(report(quarantined=len(noted)))
        lines.clear()
        batch_log.flush(end=True)
    told = {(line["code"], line["stage"]): line["count"] for line in lines}
    assert told["not_json", "decode"] == 1
    assert told["other", ""] >= 1


def test_many_small_batches_share_a_line() -> None:
    clock = Clock()
    batch_log = BatchLog(clock=clock)
    with capture_logs() as lines:
        for _ in range(BATCH_LINES_MAX + 5):
            batch_log.committed(report())
        clock.now += 1
        batch_log.flush()
    assert [line["event"] for line in lines] == ["batch"] * BATCH_LINES_MAX + ["more batches"]
    assert lines[-1]["count"] == 5
    assert lines[-1]["messages"] == 50
    assert lines[-1]["quarantined"] == 5


def test_with_a_live_view_batches_have_no_line_and_faults_have() -> None:
    batch_log = BatchLog(batch_lines=False)
    with capture_logs() as lines:
        batch_log.quarantined("b-1", [("m-1", FAULT.stage, FAULT.code)])
        batch_log.committed(report())
    assert [line["event"] for line in lines] == ["message quarantined"]


def test_batches_have_ids_of_their_own() -> None:
    one, other = BatchLog(), BatchLog()
    ids = {batch_log.next_id() for batch_log in (one, other) for _ in range(5)}
    assert len(ids) == 10


@pytest.mark.parametrize("count", [1, 200])
def test_the_latest_codes_are_kept_and_bounded(count: int) -> None:
    batch_log = BatchLog()
    fault = TransientFault("away", code="postgres_57P01")
    with capture_logs():
        for _ in range(count):
            batch_log.released(report(), fault)
        batch_log.quarantined("b-1", [("m-1", FAULT.stage, FAULT.code)])
        batch_log.committed(report())
    assert len(batch_log.recent) == min(count + 1, 50)
    assert [(r.stage, r.code) for r in batch_log.recent][-2:] == [
        (Stage.WRITE, "postgres_57P01"),
        (Stage.DECODE, "not_json"),
    ]
