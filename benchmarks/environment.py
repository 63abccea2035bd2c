"""The environment of every process under measurement: only the run's own servers, nothing else."""

from __future__ import annotations

import os

REGION = "us-east-1"
_STRAY = ("AWS_", "PG", "SQS2PG_", "VECTOR_", "DATABASE_URL", "BENCH_")


def isolated(
    endpoint_url: str, database_url: str, *, keep_pg_variables: bool = False
) -> dict[str, str]:
    """Return our environment without variables that name servers, plus this queue and database.

    With `keep_pg_variables`, the user's PG* variables stay, since they complete `database_url`.
    """
    stray = tuple(prefix for prefix in _STRAY if prefix != "PG" or not keep_pg_variables)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(stray)}
    return kept | {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "benchmarks",
        "AWS_SECRET_ACCESS_KEY": "benchmarks",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "DATABASE_URL": database_url,
    }
