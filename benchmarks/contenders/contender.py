"""What the suite needs to know of whoever it measures: how to start it, and whether it can run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

REGION = "us-east-1"
_STRAY = ("AWS_", "PG", "SQS2PG_", "VECTOR_", "DATABASE_URL", "BENCH_")


@dataclasses.dataclass(frozen=True)
class Target:
    """One run's queue and database, and a folder for files of the run."""

    endpoint_url: str
    queue_url: str
    database_url: str
    folder: Path
    keys: Path
    """The key file our pipeline masks with."""
    ca: Path | None = None
    """Trusted roots, where the queue speaks TLS."""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Settings of our pipeline, `SECTION__KEY` to value."""

    ambient: bool = False
    """The database is found with the help of the user's own PG* variables."""

    def environment(self, **more: str) -> dict[str, str]:
        """Return our environment, less all that points anywhere, pointed at this target."""
        stray = tuple(prefix for prefix in _STRAY if prefix != "PG" or not self.ambient)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(stray)}
        pointed = {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "DATABASE_URL": self.database_url,
            "QUEUE_URL": self.queue_url,
        }
        if self.ca:
            pointed["AWS_CA_BUNDLE"] = str(self.ca)
        return kept | pointed | more


@dataclasses.dataclass(frozen=True)
class Launch:
    """A command and its whole environment."""

    argv: list[str]
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to move messages from the queue to the table."""

    name: str
    title: str
    says: str
    """What it does, for the table's legend."""
    trial: int
    """Messages of the warm-up that its backlog is sized by: a second's work or so."""
    launch: Callable[[Target], Launch]
    missing: Callable[[], str] = lambda: ""
    """Why it cannot run here; empty where it can."""
    version: Callable[[], str] = lambda: ""
    limit_s: float = 60.0
    """Longest drain; a slower one is measured up to here."""
    ends: bool = True
    """Ends by itself when the queue is empty; else it is told to."""
