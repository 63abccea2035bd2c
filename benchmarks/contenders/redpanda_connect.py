"""Redpanda Connect: `aws_sqs` inputs, a Bloblang mapping, one SQL statement for each batch.

It deletes a message once the output has accepted it (at least once). It runs if `redpanda-connect`
is on PATH.

Tuned by measurement, for 4.106: an input has one receive and one delete in flight, so there are
sixteen of them. Batches are made at the input, and written as one parameter; a batch that fails is
written row by row.
"""

from __future__ import annotations

from pathlib import Path

from . import binaries
from .contender import Launch, RunTarget

BINARY = "redpanda-connect"
CONFIG = Path(__file__).with_name("redpanda_connect.yaml")
OPTIONS = {"GOGC": "400"}  # a quarter less CPU, for three times the memory


def _launch(target: RunTarget, login: str) -> Launch:
    return Launch([BINARY, "run", str(CONFIG)], target.environment(LOGIN=login, **OPTIONS))


REDPANDA_CONNECT, REDPANDA_CONNECT_NESTED = binaries.flat_and_nested(
    BINARY,
    "Redpanda Connect",
    "sixteen aws_sqs inputs, mapping with SHA-256, sql_raw of up to 1,000 rows, GOGC=400",
    _launch,
)
