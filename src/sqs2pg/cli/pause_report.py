"""What `pause` and `resume` report, and what they say to a login that may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqs2pg.cli.options import terminal_text
from sqs2pg.errors import FatalFault
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.postgres.pauses import Pause


def report_of(settings: Settings, pause: Pause | None, *, changed: bool) -> dict[str, object]:
    """Return the flat object of `--json`. `pause` is what is in force now."""
    return {
        "pipeline": settings.pipeline_name,
        "paused": pause is not None,
        "changed": changed,
        "code": pause and pause.code,
        "by": pause and pause.by,
        "reason": pause and pause.reason,
        "since": pause and pause.since_text,
    }


def reported(report: Mapping[str, object]) -> str:
    """Return since when, by whom and why it is paused."""
    reason = f": {report['reason']}" if report["reason"] else ""
    return terminal_text(f"since {report['since']} by {report['by']}{reason}")


@contextmanager
def needing_grant(act: str) -> Iterator[None]:
    """Name whom to ask where the database refuses the act in the block."""
    try:
        yield
    except FatalFault as fault:
        if fault.code == "postgres_42501":
            fault.hint = (
                "run it as the owner of the schema sqs2pg, or have the owner GRANT EXECUTE ON "
                f"FUNCTION sqs2pg.{act}(integer, text) to this login; docs/runbook.md, Paused, "
                "has all that such a login needs"
            )
        raise
