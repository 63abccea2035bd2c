"""What the suite needs to know about a contender: how to start it, and whether it can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.environment import isolated

NESTED = "event.login."
"""Where the fields of a login are in the bodies of the nested workload."""


@dataclasses.dataclass(frozen=True)
class RunTarget:
    """One run's queue and database, and a folder for its files."""

    endpoint_url: str
    queue_url: str
    database_url: str
    folder: Path
    keys: Path
    """The key file of our pipeline."""
    ca: Path | None = None
    """Trusted root certificates, if the queue speaks TLS."""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Settings of our pipeline, from `SECTION__KEY` to value."""
    ambient: bool = False
    """Whether the user's PG* variables are needed to connect to the database."""

    def environment(self, **more: str) -> dict[str, str]:
        """Return our environment, with every variable that names a server set to this target."""
        pointed = isolated(self.endpoint_url, self.database_url, keep_pg_variables=self.ambient)
        pointed["QUEUE_URL"] = self.queue_url
        if self.ca:
            pointed["AWS_CA_BUNDLE"] = str(self.ca)
        return pointed | more


@dataclasses.dataclass(frozen=True)
class Launch:
    """A command and its complete environment."""

    argv: list[str]
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to move messages from the queue to the table."""

    name: str
    title: str
    says: str
    """What it does, for the legend of the table."""
    trial: int
    """Messages of the trial that sizes its backlog: about one second of work."""
    launch: Callable[[RunTarget], Launch]
    missing: Callable[[], str] = lambda: ""
    """Returns why it cannot run here; empty if it can."""
    version: Callable[[], str] = lambda: ""
    limit_s: float = 60.0
    """Longest drain in seconds; a slower one is measured up to this limit."""
    ends: bool = True
    """Whether it ends by itself once the queue is empty; otherwise the suite ends it."""
