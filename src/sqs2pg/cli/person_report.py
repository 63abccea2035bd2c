"""What `reveal --all` shows of a person.

Must never do: write a value anywhere but to stdout.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec

from sqs2pg.cli.options import counted, print_json, terminal_text

if TYPE_CHECKING:
    from sqs2pg.vault.person_data import PersonData


def show_person(found: PersonData, *, as_json: bool) -> None:
    """Print all that is held on a person. Raises FatalFault where nothing is, acts apart."""
    from sqs2pg.vault.person_data import nothing_held

    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        for line in _lines(found):
            print(terminal_text(line))
        for line in _notes(found):
            print(line, file=sys.stderr)
    if not found.anything:
        raise nothing_held(found)


def _lines(found: PersonData) -> list[str]:
    lines = []
    for table, rows in found.rows.items():
        lines.append(f"rows of {table}: {len(rows):,}")
        lines += [f"  {json.dumps(row, ensure_ascii=False)}" for row in rows]
    lines.append(f"sealed values: {len(found.values):,}")
    lines += [f"  {one.field}\t{one.token}\t{one.value}" for one in found.values]
    lines.append(f"quarantined messages: {len(found.quarantine):,}")
    for one in found.quarantine:
        lines.append(f"  {one.id}\t{one.received_at:%Y-%m-%d}\t{one.reason}\t{one.body}")
        if one.attributes:
            lines.append(f"    with {json.dumps(one.attributes, ensure_ascii=False)}")
    lines.append(f"acts of the audit: {len(found.acts):,}")
    lines += [
        f"  {act.sequence}\t{act.at:%Y-%m-%d %H:%M:%S}\t{act.act}\t{act.role}\t{act.reason}"
        for act in found.acts
    ]
    return lines


def _notes(found: PersonData) -> list[str]:
    notes = [f"the request is act {found.audit} of the audit"]
    if found.unopened:
        notes.append(
            f"{counted(found.unopened, 'value or body does', 'values and bodies do')} not open: "
            "tell the auditor"
        )
    if found.cut_off:
        notes.append(f"there may be more: {', '.join(found.cut_off)} reached the limit")
    return notes
