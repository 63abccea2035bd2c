"""Redpanda Connect: `aws_sqs` input, a Bloblang mapping, `sql_insert` output.

It deletes a message once the output has accepted it (at least once). Its documentation recommends
this batch size for SQL outputs, as one multi-row INSERT. It runs if `redpanda-connect` is on PATH.
"""

from __future__ import annotations

from pathlib import Path

from . import binaries
from .contender import Contender, Launch, RunTarget

BINARY = "redpanda-connect"
CONFIG = Path(__file__).with_name("redpanda_connect.yaml")


def _launch(target: RunTarget) -> Launch:
    return Launch([BINARY, "run", str(CONFIG)], target.environment())


REDPANDA_CONNECT = Contender(
    name="redpanda-connect",
    title="Redpanda Connect",
    says="aws_sqs input, mapping with SHA-256, sql_insert of up to 1,000 rows",
    trial=10_000,
    launch=_launch,
    missing=lambda: binaries.missing(BINARY),
    version=lambda: binaries.version(BINARY),
    ends=False,
)
