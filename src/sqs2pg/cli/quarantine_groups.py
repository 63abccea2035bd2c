"""`sqs2pg quarantine list --group-by`: one line per kind of fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqs2pg.cli.options import aligned, print_json, terminal_text

if TYPE_CHECKING:
    from sqs2pg.postgres.quarantine_groups import Group

GROUPS = ("detail", "code", "table", "day")
"""Those of `postgres/quarantine_groups.py`; here so that `--help` loads no driver."""


def print_groups(groups: Sequence[Group], by: str, *, as_json: bool) -> None:
    """Print what a listing by `by` has found."""
    if as_json:
        print_json(
            [
                {
                    by: group.group,
                    "codes": group.codes,
                    "messages": group.messages,
                    "first_at": group.first_at.isoformat(),
                    "last_at": group.last_at.isoformat(),
                    "sample_id": group.sample_id,
                }
                for group in groups
            ]
        )
        return
    names = [by, *(["codes"] if by != "code" else []), "messages", "first at", "last at", "sample"]
    lines = [names]
    for group in groups:
        cells = [group.group or "-", *([", ".join(group.codes)] if by != "code" else [])]
        cells += [f"{group.messages:,}"]
        cells += [f"{at:%Y-%m-%dT%H:%M:%S%z}" for at in (group.first_at, group.last_at)]
        lines.append([terminal_text(cell) for cell in [*cells, str(group.sample_id)]])
    print("\n".join(aligned(lines)))
