"""What a run prints of its end."""

from __future__ import annotations

import re

from sqs2pg.cli.run_process import as_flat, summary
from sqs2pg.pipeline.totals import Totals


def test_the_rate_is_the_quotient_of_two_printed_figures() -> None:
    totals = Totals(2_000, 1_960, 0, 40, 0, seconds=2.444, busy_seconds=0.423)
    found = re.search(r"; ([\d,]+) messages in ([\d.]+) s: ([\d,]+) a second", summary(totals))
    assert found
    messages, seconds, rate = (float(figure.replace(",", "")) for figure in found.groups())
    assert rate == round(messages / seconds) == 4728
    flat = as_flat(totals)
    assert flat["messages_per_second"] == round(2_000 / flat["busy_seconds"], 1)


def test_a_run_without_messages_has_no_rate() -> None:
    assert summary(Totals(seconds=1.0)).endswith("released 0, in 1.0 s")
