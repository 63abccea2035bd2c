"""`sqs2pg config show | schema | test`: the settings in effect, their schema, their examples.

Must never do: print a secret.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import msgspec

from sqs2pg import settings as settings_module
from sqs2pg.cli.doctor.sample_documents import SampleParameter
from sqs2pg.cli.options import CommandGroup, config_option, json_option, print_json, read_settings
from sqs2pg.errors import SettingsError
from sqs2pg.mapping import examples

HIDDEN = "***"

# PostgreSQL documentation, 32.1.1 "Connection Strings" and 32.1.2 "Parameter Key Words". Both
# forms must match to the end: a string that is not understood is hidden, never shown in part.
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/]*)(?P<password>:[^@/]*)?@)?"
    r"(?P<hosts>(?:(?:\[[^\]@/]*\]|[^:@/?#\[\],]*)(?::[0-9]*)?(?:,|(?=[/?]|\Z)))+)"
    r"(?P<name>/[^?@]*)?(?P<query>\?(?:[\w%]+=[^&]*(?:&[\w%]+=[^&]*)*)?)?\Z",
    re.DOTALL,
)
_PAIR = re.compile(r"\s*(\w+)(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s\\']|\\.)*)(?=\s|\Z)", re.DOTALL)
_SECRET = re.compile(r"password|secret|token|scram_(client|server)_key")


@click.group(cls=CommandGroup)
def config() -> None:
    """Show or test the settings, or print their JSON Schema."""


@config.command()
@config_option
@json_option
def show(config: Path | None, as_json: bool) -> None:
    """Print the effective settings; secrets are hidden."""
    settings = read_settings(config)
    tree = msgspec.to_builtins(settings)
    tree["sink"]["dsn"] = hide_password(settings.sink.dsn)
    tree["status"]["token"] = HIDDEN if settings.status.token else ""
    if not settings.routed:
        tree["field"] = [msgspec.to_builtins(field) for field in settings.fields]
        tree["field"] += [{"source": name, "mask": "drop"} for name in settings.dropped]
    for route in tree["route"]:
        route["field"] = [
            {"source": field["source"], "mask": "drop"} if field["mask"] == "drop" else field
            for field in route["field"]
        ]
    if as_json:
        print_json(tree)
    else:
        print(_toml(tree))


@config.command()
@config_option
@click.option(
    "--sample",
    metavar="N|FILE",
    type=SampleParameter(),
    help="Show what N waiting messages, or the lines of an archive, would become, masked; nothing "
    "is written or deleted.",
)
@json_option
def test(config: Path | None, sample: int | Path | None, as_json: bool) -> int:
    """Run the mapping's own [[example]]s, or a sample; exit 1 on a difference or a quarantine."""
    if sample is not None:
        from sqs2pg.cli.sample_report import report_sample

        return report_sample(config, sample, as_json=as_json)
    return _test_examples(read_settings(config), as_json=as_json)


def _test_examples(settings: settings_module.Settings, *, as_json: bool) -> int:
    from sqs2pg.runners.compile_plan import masks_of

    if not settings.example:
        raise SettingsError(
            "the settings have no [[example]] to test",
            code="no_examples",
            hint='write one beside the mapping: input = {…}, and row = {…} or fault = "…"; or try '
            "waiting messages with --sample N",
        )
    mapping = examples.compile_offline(settings, masks_of(settings, examples.test_keyring()))
    differences = list(examples.check_examples(settings, mapping))
    failed = {difference.example for difference in differences}
    if as_json:
        found = [f"{difference.example}: {difference.what}" for difference in differences]
        counts = {"examples": len(settings.example), "failed": len(failed)}
        print_json({"ok": not differences, **counts, "differences": found})
    else:
        for difference in differences:
            print(f"FAIL {difference.example}: {difference.what}")
        print(f"{len(settings.example)} examples, {len(failed)} failed")
    return 1 if differences else 0


@config.command()
@config_option
def schema(config: Path | None) -> None:
    """Print the JSON Schema of the settings file, which is the same for every file."""
    del config  # taken because every command takes it
    print(json.dumps(msgspec.json.schema(settings_module.Settings), indent=2))


def hide_password(dsn: str) -> str:
    """Return a libpq connection string, URL or key=value, with its secrets replaced by `***`."""
    if dsn.startswith(("postgresql://", "postgres://")):
        return _hide_in_url(dsn)
    shown, position, end = "", 0, len(dsn.rstrip())
    while position < end:
        pair = _PAIR.match(dsn, position)
        if pair is None:
            return HIDDEN
        name, equals, value = pair.groups()
        shown += dsn[position : pair.start(1)] + name + equals
        shown += HIDDEN if _is_secret(name) else value
        position = pair.end()
    return shown


def _hide_in_url(url: str) -> str:
    match = _URL.match(url)
    if match is None:
        return HIDDEN
    shown = match["scheme"]
    if match["user"] is not None:
        shown += match["user"] + (f":{HIDDEN}" if match["password"] else "") + "@"
    shown += match["hosts"] + (match["name"] or "")
    if match["query"]:
        shown += "?" + "&".join(map(_hide_in_parameter, match["query"][1:].split("&")))
    return shown


def _hide_in_parameter(parameter: str) -> str:
    name, _, _ = parameter.partition("=")
    return f"{name}={HIDDEN}" if _is_secret(unquote(name)) else parameter


def _is_secret(name: str) -> bool:
    return _SECRET.search(name.lower()) is not None


def _toml(tree: dict[str, Any]) -> str:
    lines = [_line(k, v) for k, v in tree.items() if not isinstance(v, (dict, list, tuple))]
    for section, values in tree.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(_line(k, v) for k, v in values.items())]
    lines += _tables("field", tree["field"])
    lines += _tables("index", tree["index"])
    lines += _tables("example", tree["example"])
    for route in tree["route"]:
        lines += _tables("route", [{k: v for k, v in route.items() if k != "field"}])
        lines += _tables("route.field", route["field"])
    return "\n".join(lines)


def _tables(name: str, tables: Sequence[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        given = {k: v for k, v in table.items() if v is not None and (k, v) != ("source", "")}
        lines += ["", f"[[{name}]]", *(_line(k, v) for k, v in given.items())]
    return lines


def _inline(table: dict[str, Any]) -> str:
    lines = (_line(json.dumps(k), v) for k, v in table.items() if v not in (None, [], ()))
    return f"{{{', '.join(lines)}}}"


def _line(key: str, value: Any) -> str:
    if value is None:  # TOML has no null
        return f"# {key} is not set"
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return f"{key} = [{', '.join(_inline(one) for one in value)}]"
    if isinstance(value, dict):
        return f"{key} = {_inline(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{key} = {value}"  # Python and TOML write inf and nan alike
    # JSON's strings, numbers and booleans are valid TOML, except escaped surrogates, which are
    # therefore not made, and DEL, which TOML wants escaped.
    return f"{key} = {json.dumps(value, ensure_ascii=False, default=str)}".replace(
        "\x7f", "\\u007f"
    )
