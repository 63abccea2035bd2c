"""Our pipeline as users run it: `sqs2pg run --drain`, with everything on.

That includes ledger, masks, quarantine, leases, metrics over HTTP and delete after COMMIT. The
settings are the defaults, except for those given with `--setting`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sqs2pg

from .contender import Contender, Launch, RunTarget


def environment(target: RunTarget) -> dict[str, str]:
    """Return the environment of the run's `sqs2pg` commands."""
    ours = {
        "SQS2PG_SOURCE__QUEUE": target.queue_url.rsplit("/", 1)[-1],
        "SQS2PG_KEYS__FILE": str(target.keys),
        # On, at any free port, since several may run at once.
        "SQS2PG_STATUS__BIND": "127.0.0.1:0",
    }
    ours |= {f"SQS2PG_{name}": value for name, value in target.settings.items()}
    return target.environment(**ours)


def command(*arguments: str, settings: Path | str = "/dev/null") -> list[str]:
    """Return a `sqs2pg` command line with a settings file, or folder of them; without one: none."""
    return [sys.executable, "-m", "sqs2pg", *arguments, "-c", str(settings)]


def launch(target: RunTarget, workers: int, **more: str) -> Launch:
    """Return the drain by this many workers; `more` are further environment variables."""
    return Launch(command("run", "--drain", "--workers", str(workers)), environment(target) | more)


def _version() -> str:
    return sqs2pg.__version__


ONE = Contender(
    name="sqs2pg",
    title="sqs2pg",
    says="`sqs2pg run --drain`, one process, everything on",
    trial=50_000,
    launch=lambda target: launch(target, 1),
    version=_version,
)
TWO = Contender(
    name="sqs2pg2",
    title="sqs2pg, 2 workers",
    says="`sqs2pg run --drain --workers 2`",
    trial=50_000,
    launch=lambda target: launch(target, 2),
    version=_version,
)
NESTED_MAPPING = Path(__file__).with_name("nested.toml")
ONE_NESTED = Contender(
    name="sqs2pg-nested",
    title="sqs2pg, nested",
    says="`sqs2pg run --drain` with the built-in mapping's fields inside event.login",
    trial=50_000,
    launch=lambda target: Launch(
        command("run", "--drain", settings=NESTED_MAPPING), environment(target)
    ),
    version=_version,
)
RECOVERY = Contender(
    name="sqs2pg-recovery",
    title="sqs2pg, recovery on",
    says="`sqs2pg run --drain` with `vault.enabled`: addresses and devices sealed per person",
    trial=20_000,
    launch=lambda target: launch(target, 1, SQS2PG_VAULT__ENABLED="true"),
    version=_version,
)
