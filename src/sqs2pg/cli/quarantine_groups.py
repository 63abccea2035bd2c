"""`sqs2pg quarantine list --group-by`: one line per kind of fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqs2pg.cli.options import print_json
from sqs2pg.cli.quarantine_table import print_table, short_time, whole_time

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
    coded = by != "code"
    wide = [[by, *(["codes"] if coded else []), "messages", "first at", "last at", "sample"]]
    narrow = [[*(["codes"] if coded else [by]), "messages", "first (UTC)", "last (UTC)", "sample"]]
    below = []
    for group in groups:
        name, codes, messages = group.group or "-", ", ".join(group.codes), f"{group.messages:,}"
        times, sample = (group.first_at, group.last_at), str(group.sample_id)
        named = [name, *([codes] if coded else [])]
        wide.append([*named, messages, *map(whole_time, times), sample])
        narrow.append([codes if coded else name, messages, *map(short_time, times), sample])
        below.append(name if coded else "")
    print_table(wide, narrow, below)
