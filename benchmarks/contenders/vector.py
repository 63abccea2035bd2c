"""Vector: `aws_sqs` source, `remap` transform, `postgres` sink with end-to-end acknowledgements.

With acknowledgements on, it deletes a message once the sink has accepted it (at least once). It
runs if `vector` is on PATH.
"""

from __future__ import annotations

from pathlib import Path

from . import binaries
from .contender import Contender, Launch, RunTarget

BINARY = "vector"
CONFIG = Path(__file__).with_name("vector.yaml")


def _launch(target: RunTarget) -> Launch:
    data = target.folder / "vector"
    data.mkdir(exist_ok=True)
    return Launch(
        [BINARY, "--quiet", "--config", str(CONFIG)],
        target.environment(VECTOR_DATA_FOLDER=str(data)),
    )


VECTOR = Contender(
    name="vector",
    title="Vector",
    says="aws_sqs source, remap with SHA-256, postgres sink of up to 1,000 rows, acknowledged",
    trial=10_000,
    launch=_launch,
    missing=lambda: binaries.missing(BINARY),
    version=lambda: binaries.version(BINARY),
    ends=False,
)
