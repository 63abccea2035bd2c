"""What `forget` reports: counts, who was not found, and what it cannot reach.

Must never do: name a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from sqs2pg.cli.options import counted, listed
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.vault.erase import Erased

LINES_SHOWN_MAX = 20
"""Line numbers of people who were not found, in text; `--json` has them all."""


def flat(report: Erased, settings: Settings, lines: list[int], *, dry_run: bool) -> dict[str, Any]:
    """Return the report for `--json`. `lines` are the line numbers of those not found."""
    tree: dict[str, Any] = msgspec.to_builtins(report)
    del tree["quarantine_unreadable_newest"]
    return {
        "dry_run": dry_run,
        **tree,
        "not_found_lines": lines,
        "quarantine_unreadable_until": _until(report, settings),
        "remains": remains(report, settings),
    }


def text(report: Erased, settings: Settings, lines: list[int], *, dry_run: bool) -> str:
    """Return the report for people to read."""
    rows = f"rows {report.rows_changed:,} cleared"
    if report.rows_deleted:
        rows = f"{rows} and " if report.rows_changed else "rows "
        rows += f"{report.rows_deleted:,} deleted"
    would = "would erase" if dry_run else "erased"
    bodies = counted(report.quarantine_removed, "quarantined body", "quarantined bodies")
    told = [
        (
            f"{would} {counted(report.found, 'person', 'people')}: "
            f"{counted(report.keys_destroyed, 'key')} destroyed, "
            f"{counted(report.values_removed, 'value')} removed, {rows}, "
            f"{bodies} removed"
        )
    ]
    if report.not_found:
        told.append(
            f"not found: {counted(report.not_found, 'person', 'people')}{_on(lines)}. Nothing is "
            "kept under such an id, or it was erased before"
        )
    if report.rows_left:
        told.append(
            f"NOT FINISHED: {counted(report.rows_left, 'row')} about them still there: others keep "
            "adding them, or a trigger or rule of the table keeps them. Stop that, then run the "
            "same command again"
        )
    if report.came_back:
        told.append(
            f"{counted(report.came_back, 'of them has', 'of them have')} a new key: a message came "
            "meanwhile; run the same command again"
        )
    told.append("what remains, and where:" if not dry_run else "what would remain, and where:")
    return "\n".join([*told, *(f"- {line}" for line in remains(report, settings))])


def _on(lines: list[int]) -> str:
    if not lines:
        return ""
    return f" (line{'s' if len(lines) > 1 else ''} {listed(lines, LINES_SHOWN_MAX)})"


def _until(report: Erased, settings: Settings) -> str | None:
    newest = report.quarantine_unreadable_newest
    days = timedelta(days=settings.quarantine.retention_days)
    return f"{newest + days:%Y-%m-%d}" if newest else None


_OF_NOBODY = "quarantined body, sealed, that does not say whose it is"
_OF_NOBODIES = "quarantined bodies, sealed, that do not say whose they are"


def remains(report: Erased, settings: Settings) -> list[str]:
    """Return what this erasure cannot reach, one line each."""
    lines = []
    if report.quarantine_unreadable:
        lines.append(
            f"{counted(report.quarantine_unreadable, _OF_NOBODY, _OF_NOBODIES)}; the last is "
            f"purged on {_until(report, settings)}"
        )
    lines += [
        f"rows in the foreign table {table}, a partition on another server: erase them there"
        for table in report.tables_skipped
    ]
    lines += [
        f"rows in {table}, which has the columns of a target and is no part of it, as a detached "
        "partition or a copy has: erase them there"
        for table in report.tables_alike
    ]
    lines += [
        f"older versions of rows that were deleted from {table}: one that is still to come is "
        "stored as a new row; forget again afterwards"
        for table in report.tables_forgotten
    ]
    return [
        *lines,
        "messages in flight on the queue: their rows will be new ones; forget again afterwards",
        (
            "the server's logs, as far as statements, their parameters or rows were logged before "
            "(log_statement, log_min_duration_statement, auto_explain, pgaudit): let them expire"
        ),
        "backups and WAL archives made before, which hold values and wrapped keys: let them expire",
        (
            "replicas, until they have replayed this; dead row versions, until VACUUM; what "
            "subscribers of a publication keep"
        ),
        "copies that were made elsewhere of rows or revealed values",
    ]


def line_numbers(ids: Iterable[str], wanted: set[str]) -> list[int]:
    """Return on which lines the wanted ids were given, from 1."""
    return [number for number, id_ in enumerate(ids, 1) if id_ in wanted]
