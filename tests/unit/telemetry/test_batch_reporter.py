"""From the steps of a batch to what is measured of it."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from sqs2pg.message import Message, Outcome, RowChanges, SystemAttributes
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.batch_reporter import BatchReporter
from sqs2pg.telemetry.metrics import Metrics


@pytest.mark.parametrize(("sent_ago_s", "lag_s"), [(90.0, 90.0), (-3_600.0, 0.0)])
def test_the_lag_is_since_sqs_took_the_message_and_never_below_nothing(
    sent_ago_s: float, lag_s: float
) -> None:
    """The clock of SQS may be ahead of ours."""
    reporter = BatchReporter(Metrics(), BatchLog(), None)
    sent_ms = int((time.time() - sent_ago_s) * 1000)
    with capture_logs() as lines:
        reporter.begin([Message("m", "h", "{}", SystemAttributes(sent_ms))])
        reporter.encoded(None, 1)
        reporter.committed([Outcome.WRITTEN], sent_ms, 0.01, slow=False, rows=RowChanges(1))
    assert lines[0]["lag_s"] == pytest.approx(lag_s, abs=30 if lag_s else 0)
