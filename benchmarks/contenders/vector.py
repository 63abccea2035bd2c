"""Vector: `aws_sqs` sources, `remap` transform, `postgres` sink with end-to-end acknowledgements.

With acknowledgements on, it deletes a message once the sink has accepted it (at least once). It
runs if `vector` is on PATH.

Tuned by measurement, for Vector 0.58: a source has one delete in flight whatever its
`client_concurrency` is, so there are eight of them. Without `drop_on_error` an event whose masking
failed would go on unmasked.
"""

from __future__ import annotations

from pathlib import Path

from . import binaries
from .contender import Launch, RunTarget

BINARY = "vector"
CONFIG = Path(__file__).with_name("vector.yaml")
# 0.58 no longer puts variables into its file by default. The second saves up to a tenth of its CPU.
OPTIONS = {
    "VECTOR_DANGEROUSLY_ALLOW_ENV_VAR_INTERPOLATION": "true",
    "DISABLE_INTERNAL_METRICS_TRACING_INTEGRATION": "true",
}


def _launch(target: RunTarget, login: str) -> Launch:
    data = target.folder / "vector"
    data.mkdir(exist_ok=True)
    return Launch(
        [BINARY, "--quiet", "--config", str(CONFIG)],
        target.environment(VECTOR_DATA_FOLDER=str(data), LOGIN=login, **OPTIONS),
    )


VECTOR, VECTOR_NESTED = binaries.flat_and_nested(
    BINARY,
    "Vector",
    "eight aws_sqs sources, remap with SHA-256, postgres sink of up to 2,000 rows, acknowledged",
    _launch,
)
