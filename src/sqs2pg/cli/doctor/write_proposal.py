"""Write a proposal as a settings file, once it was read and tried as `sqs2pg` would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqs2pg.cli.doctor.propose_field import Proposed
from sqs2pg.cli.doctor.propose_mapping import Proposal, Table
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.examples import compile_offline, test_keyring
from sqs2pg.message import Message
from sqs2pg.runners.compile_plan import masks_of
from sqs2pg.settings import Settings, load, source_paths
from sqs2pg.settings.fields import DROP

_PLAIN = ("source", "column", "required", "length_max")
_MARKS = ("TopicArn", "Message", "detail", "detail-type")
"""Names that an envelope under "auto" would take off: rules.py refuses fields that read them."""


def settings_of(proposal: Proposal, envelope: Mapping[str, Any], queue: str) -> Settings:
    """Return the settings that a proposal stands for. Raises SettingsError."""
    tables = [(one, [f.field for f in one.fields if not f.left_out]) for one in proposal.tables]
    tree: dict[str, Any] = {"source": {"queue": queue}}
    if envelope:
        tree["envelope"] = dict(envelope)
    if proposal.routed:
        tree["route"] = [{**_about(table), "field": fields} for table, fields in tables]
    else:
        [(table, fields)] = tables
        tree |= {"sink": {"table": table.table}, "field": fields}
        tree |= {"explode": table.explode} if table.explode else {}
    return load(environ={}, overrides=tree, discover=False)


def _about(table: Table) -> dict[str, Any]:
    when = {"when": {"field": table.when, "exists": True}} if table.when else {}
    return {
        "table": table.table,
        **when,
        **({"explode": table.explode} if table.explode else {}),
    }


def settle(
    proposal: Proposal, envelope: Mapping[str, Any], queue: str, messages: Sequence[Message]
) -> bool:
    """Try a proposal on the sample; change each field that a message fails by. False: hopeless.

    `messages` are those that have documents. A field that fails loses what it has over a plain
    one, then becomes text or jsonb, then is dropped, so it comes to an end.
    """
    if envelope.get("layers") == ["auto"]:
        _leave_out_marks(proposal)
    _harmonize(proposal)
    steps = 6 * sum(len(table.fields) for table in proposal.tables) + 1
    for _ in range(steps):
        settings = settings_of(proposal, envelope, queue)
        fault = _first_fault(settings, messages)
        if fault is None:
            return True
        name = (
            fault.detail.split(" ", 2)[-1] if fault.detail.startswith("record ") else fault.detail
        )
        failing = [
            (table, one)
            for table in proposal.tables
            for one in table.fields
            if not one.left_out and name and one.field.get("source") == name
        ]
        if not failing:
            return False
        for table, one in failing:
            _make_plainer(table, one, fault.code)
        _harmonize(proposal)
    return False


def _first_fault(settings: Settings, messages: Sequence[Message]) -> PermanentFault | None:
    mapping = compile_offline(settings, masks_of(settings, test_keyring()))
    decoded = mapping.decode_all(messages)
    for message, unit in zip(messages, decoded, strict=True):
        if isinstance(unit, PermanentFault):
            return unit
        [row] = mapping.rows(["key"], [message], [unit])
        if isinstance(row, PermanentFault):
            return row
    return None


def _make_plainer(table: Table, one: Proposed, code: str) -> None:
    """Change a field that a message of the sample fails by."""
    field = one.field
    if code in ("missing_field", "empty_field") and field.pop("required", None):
        return
    shape = one.shape
    texts = shape is not None and shape.kinds.keys() <= {"text", "null"}
    masked = field.get("mask", "keep") != "keep"
    kept = {name: field[name] for name in _PLAIN if name in field}
    if masked and field.get("mask") != DROP and field.get("kind"):
        del field["kind"]
    elif not masked and texts and field.keys() - _PLAIN:
        one.field = kept
    elif not masked and field.get("type") != "jsonb" and not texts:
        one.field = {**kept, "type": "jsonb"}
    elif shape is not None:
        _drop(one, "it has values that PostgreSQL or a mask does not take")
    else:
        table.fields.remove(one)


def _harmonize(proposal: Proposal) -> None:
    """Make what is dropped or masked in one table so in all: else one shows what another hides."""
    fields = [one for table in proposal.tables for one in table.fields if not one.left_out]
    while any(_hide(one, fields) for one in fields):
        pass
    _fill_empty(proposal)


def _hide(one: Proposed, fields: Sequence[Proposed]) -> bool:
    """Drop a field that shows what another one hides; return whether it was dropped now."""
    source = one.field.get("source")
    if not source or one.field.get("mask") == DROP:
        return False
    for other in fields:
        inner, mask = other.field.get("source", ""), other.field.get("mask", "keep")
        if not inner or mask == "keep":
            continue
        if mask == DROP and source_paths.contains(inner, source):
            _drop(one, "dropped elsewhere")
        elif "mask" not in one.field and source_paths.contains(source, inner):
            _drop(one, "masked elsewhere")
    return one.field.get("mask") == DROP


def _drop(one: Proposed, why: str) -> None:
    one.field = {"source": one.field["source"], "mask": DROP}
    one.note = f"{why}: dropped; judge for yourself"


def _fill_empty(proposal: Proposal) -> None:
    """Give a table the message's id if no column is left: without fields it would have others."""
    for table in proposal.tables:
        if not any("column" in one.field and not one.left_out for one in table.fields):
            note = "nothing else of the messages is kept"
            field = {"column": "message_id", "default": "message_id"}
            table.fields.insert(0, Proposed(field, note))


def _leave_out_marks(proposal: Proposal) -> None:
    for table in proposal.tables:
        for one in table.fields:
            source = one.field.get("source", "")
            if source.split(".")[0] in _MARKS:
                one.left_out, one.note = True, "it has a name of an envelope; declare the layers"


def write_toml(
    proposal: Proposal,
    *,
    queue: str,
    envelope: Mapping[str, Any],
    origin: str,
    explain: bool = False,
) -> str:
    """Return the settings file, checked by reading it as `sqs2pg` would.

    Raises SettingsError if it would be refused, which is a fault of ours.
    """
    settings_of(proposal, envelope, queue)
    lines = [
        f"# Proposed by `sqs2pg init` from {origin}. Read it, then: sqs2pg migrate && sqs2pg check",
        *(() if not proposal.tables[0].explode or proposal.routed else _top(proposal.tables[0])),
        "",
        "[source]",
        f"queue = {_text(queue)}",
    ]
    if not proposal.routed:
        lines += ["", "[sink]", f"table = {_text(proposal.tables[0].table)}"]
    if envelope:
        lines += ["", "[envelope]", *(f"{k} = {_value(v)}" for k, v in envelope.items())]
    for table in proposal.tables:
        lines += [f"# {note}" for note in table.notes]
        if proposal.routed:
            about = _about(table)
            lines += ["", "[[route]]", *(f"{key} = {_value(v)}" for key, v in about.items())]
        name = "route.field" if proposal.routed else "field"
        for one in table.fields:
            lines += ["", *_field(one, name, explain=explain)]
    return "\n".join(lines) + "\n"


def _top(table: Table) -> list[str]:
    return ["", f"explode = {_text(table.explode)}"]


def _field(one: Proposed, name: str, *, explain: bool) -> list[str]:
    mark = "# " if one.left_out else ""
    return [
        *([f"# {one.note}"] if one.note else []),
        *([f"# seen: {one.why}"] if explain and one.why else []),
        f"{mark}[[{name}]]",
        *(f"{mark}{key} = {_value(value)}" for key, value in one.field.items()),
    ]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value)


def _text(value: Any) -> str:
    # JSON's strings are TOML's, except that TOML wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
