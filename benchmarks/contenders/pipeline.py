"""Our pipeline as users run it: `sqs2pg run --drain`, with everything on.

Ledger, masks, quarantine, leases, metrics over HTTP, delete after COMMIT; the settings are the
defaults, but for what a run is told with `--setting`.
"""

from __future__ import annotations

import sys

import sqs2pg

from .contender import Contender, Launch, Target


def environment(target: Target) -> dict[str, str]:
    """Return the environment of any `sqs2pg` command of the run."""
    ours = {
        "SQS2PG_SOURCE__QUEUE": target.queue_url.rsplit("/", 1)[-1],
        "SQS2PG_KEYS__FILE": str(target.keys),
        # On, at a port of its own: several may run at once.
        "SQS2PG_STATUS__BIND": "127.0.0.1:0",
    }
    ours |= {f"SQS2PG_{name}": value for name, value in target.settings.items()}
    return target.environment(**ours)


def command(*arguments: str) -> list[str]:
    """Return a `sqs2pg` command line that reads no settings file."""
    return [sys.executable, "-m", "sqs2pg", *arguments, "-c", "/dev/null"]


def _launch(target: Target, workers: int, **more: str) -> Launch:
    return Launch(command("run", "--drain", "--workers", str(workers)), environment(target) | more)


def _version() -> str:
    return sqs2pg.__version__


ONE = Contender(
    name="sqs2pg",
    title="sqs2pg",
    says="`sqs2pg run --drain`, one process, everything on",
    trial=50_000,
    launch=lambda target: _launch(target, 1),
    version=_version,
)
TWO = Contender(
    name="sqs2pg2",
    title="sqs2pg, 2 workers",
    says="`sqs2pg run --drain --workers 2`",
    trial=50_000,
    launch=lambda target: _launch(target, 2),
    version=_version,
)
RECOVERY = Contender(
    name="sqs2pg-recovery",
    title="sqs2pg, recovery on",
    says="`sqs2pg run --drain` with `vault.enabled`: addresses and devices sealed by person",
    trial=20_000,
    launch=lambda target: _launch(target, 1, SQS2PG_VAULT__ENABLED="true"),
    version=_version,
)
