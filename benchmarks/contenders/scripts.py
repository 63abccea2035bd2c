"""The plain and the tuned script as contenders."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path

from .contender import Contender, Launch, RunTarget

HERE = Path(__file__).parent


def _launch(file: str, target: RunTarget) -> Launch:
    return Launch([sys.executable, str(HERE / file)], target.environment())


def missing() -> str:
    absent = [name for name in ("boto3", "psycopg2") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _version() -> str:
    return f"boto3 {version('boto3')}, psycopg2 {version('psycopg2-binary')}"


PLAIN = Contender(
    name="plain",
    title="plain script",
    says="boto3, psycopg2: receive 10, SHA-256, INSERT and COMMIT per row, one delete per message",
    trial=400,
    limit_s=10.0,
    launch=lambda target: _launch("plain_script.py", target),
    missing=missing,
    version=_version,
)
TUNED = Contender(
    name="tuned",
    title="tuned script",
    says="the same with execute_values, one COMMIT and one batch delete per 10 messages",
    trial=4_000,
    limit_s=10.0,
    launch=lambda target: _launch("tuned_script.py", target),
    missing=missing,
    version=_version,
)
