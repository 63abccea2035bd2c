"""Redpanda Connect: `aws_sqs` input, a Bloblang mapping, `sql_insert` output.

It deletes a message once the output has taken it (at least once). The batch size is what its
documentation advises for SQL outputs: a multi-row INSERT. Runs where `redpanda-connect` is on
PATH.
"""

from __future__ import annotations

from pathlib import Path

from . import binaries
from .contender import Contender, Launch, Target

BINARY = "redpanda-connect"
CONFIG = Path(__file__).with_name("redpanda_connect.yaml")


def _launch(target: Target) -> Launch:
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
