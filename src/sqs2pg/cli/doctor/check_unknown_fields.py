"""Check of drift: what messages had that no field of the mapping names, and the lines to add."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, ok, warn
from sqs2pg.cli.doctor.personal_names import category_of, snake_case
from sqs2pg.mapping.known_names import member_names
from sqs2pg.mapping.unknown_members import UnknownMembers
from sqs2pg.postgres.unknown_fields import SHOWN_MAX, UNKNOWN_FIELDS, UnknownField
from sqs2pg.settings.fields import DROP

LINES_MAX = 20
"""Fields for which the lines of settings are shown."""

_THERE = "SELECT to_regclass('sqs2pg.unknown_field') IS NOT NULL"
_PIPELINE = "SELECT id FROM sqs2pg.pipeline WHERE name = %s"
_TYPES = {"text": "text", "number": "numeric", "boolean": "boolean"}


async def check_unknown_fields(context: Context) -> list[Finding]:
    """Report the fields that were seen and that no mapping names."""
    name, settings = "unknown fields", context.settings
    [(there,)] = await context.query(_THERE)
    numbers = await context.query(_PIPELINE, [settings.pipeline_name]) if there else []
    if not numbers:
        return []
    values = [numbers[0][0], UnknownMembers(settings).digest, SHOWN_MAX]
    found = [UnknownField(*row) for row in await context.query(UNKNOWN_FIELDS, values)]
    if not found:
        return [ok(name, "none was seen")]
    counts = ", ".join(f"{one.path or '(no name)'} {one.type} {one.seen:,}" for one in found)
    named = [one for one in found if one.path]
    detail = f"seen, and named by no field: {counts}"
    if not settings.report_unknown:
        remedy = "set report_unknown = true to have their names recorded"
    elif named:
        lines = suggest_fields(named, routed=settings.routed)
        remedy = f"add what you need, or leave it out with mask = {DROP!r}:\n{lines}"
    else:
        remedy = "their names were not recorded; they will be from now on"
    return [warn(name, detail, remedy)]


def suggest_fields(found: Sequence[UnknownField], *, routed: bool) -> str:
    """Return the settings that name some fields, as TOML."""
    types: dict[str, set[str]] = {}
    for one in found:
        types.setdefault(one.path, set()).add(one.type)
    name = "route.field" if routed else "field"
    lines: list[str] = []
    for path, seen in list(types.items())[:LINES_MAX]:
        lines += [f"[[{name}]]", f"source = {json.dumps(path, ensure_ascii=False)}"]
        lines += _settings_for(path, seen - {"null"})
    return "\n".join(lines)


def _settings_for(path: str, types: set[str]) -> list[str]:
    type_ = _TYPES.get(next(iter(types)), "jsonb") if len(types) == 1 else "jsonb"
    if not types:
        type_ = "text"  # only null was seen
    column = re.sub(r"[^a-z0-9]+", "_", snake_case(path).lower()).strip("_")[:60] or "value"
    field = [f"column = {json.dumps(column)}"]
    category = category_of(member_names(path))
    if category and type_ != "boolean":
        if type_ != "text" or category == "secret":
            return [f'mask = "{DROP}"  # looks personal: {category}']
        return [*field, f'mask = "pseudonymize"  # looks personal: {category}']
    return [*field, *([] if type_ == "text" else [f'type = "{type_}"'])]
