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
from .contender import NESTED, Contender, Launch, RunTarget

BINARY = "redpanda-connect"
CONFIG = Path(__file__).with_name("redpanda_connect.yaml")
OPTIONS = {"GOGC": "400"}  # a quarter less CPU, for three times the memory


def _contender(name: str, title: str, login: str) -> Contender:
    """`login`: the path of the login's fields in a body, with a dot at its end; empty: the top."""

    def launch(target: RunTarget) -> Launch:
        return Launch([BINARY, "run", str(CONFIG)], target.environment(LOGIN=login, **OPTIONS))

    return Contender(
        name=name,
        title=title,
        says="sixteen aws_sqs inputs, mapping with SHA-256, sql_raw of up to 1,000 rows, GOGC=400",
        trial=20_000,
        launch=launch,
        missing=lambda: binaries.missing(BINARY),
        version=lambda: binaries.version(BINARY),
        ends=False,
    )


REDPANDA_CONNECT = _contender("redpanda-connect", "Redpanda Connect", "")
REDPANDA_CONNECT_NESTED = _contender("redpanda-connect-nested", "Redpanda Connect, nested", NESTED)
