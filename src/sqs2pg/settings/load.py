"""Read the settings: the TOML file, then the environment over it, then a command's own options.

Errors name the file or variable, the key and the remedy, never a value: it may be a misplaced
secret.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import msgspec

from sqs2pg.errors import SettingsError, nearest
from sqs2pg.settings.rules import check_columns, cross_check
from sqs2pg.settings.sections import Settings

DEFAULT_FILE = Path("sqs2pg.toml")
ENVIRONMENT_PREFIX = "SQS2PG_"
CONFIG_VARIABLE = "SQS2PG_CONFIG"
PIPELINE_NAME = re.compile("[a-z0-9_-]{1,63}")
"""The name of one of several pipelines: it stands in addresses and labels."""


def load(
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    overrides: Mapping[str, Any] | None = None,
    discover: bool = True,
) -> Settings:
    """Return the effective settings.

    `file` is `-c FILE`; the default is `SQS2PG_CONFIG`, then `sqs2pg.toml` in the current folder.
    `overrides` are nested values from a command's own options; they win over everything.

    A pipeline without a `name` is called after its file, `sqs2pg.toml` after its target table.

    Without `discover`, `sqs2pg.toml` is not looked for: only `file`, `environ` and `overrides`
    count.
    Raises SettingsError (exit code 2) naming the file or variable, the key and the remedy.
    """
    path = file or config_of(environ)
    if path is None and discover and DEFAULT_FILE.is_file():
        path = DEFAULT_FILE
    tree = read_file(path) if path else {}
    variables, variable_tree = from_environment(environ)
    return build(tree, path, variables, variable_tree, overrides or {})


def config_of(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the settings file or folder that the environment names; None where it names none."""
    return Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None


def build(
    tree: dict[str, Any],
    path: Path | None,
    variables: Mapping[str, str],
    *over: Mapping[str, Any],
) -> Settings:
    """Return the settings of a file's tree, with the trees in `over` laid over it in turn.

    `path` is the file's; `variables` are those that `from_environment` returns. A pipeline without
    a `name` is called after its file. Raises SettingsError.
    """
    origin = str(path) if path else "the settings"
    for values in over:
        _merge(tree, values)
    _split_lists(tree)
    _lower_words(tree)
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _explain(error, origin, variables) from None
    if path and not settings.name and (name := _stem_of(path)):
        settings = msgspec.structs.replace(settings, name=name)
    check_columns(settings, origin)
    cross_check(settings)
    return settings


def _stem_of(path: Path) -> str:
    """Return the name that a file gives its pipeline; "" where that is the target table's.

    Raises SettingsError where the file's name cannot be the pipeline's.
    """
    if path.suffix != ".toml" or path.name == DEFAULT_FILE.name:
        return ""
    if PIPELINE_NAME.fullmatch(path.stem):
        return path.stem
    raise SettingsError(
        f"{path} has no `name`, and its file name cannot be the pipeline's name",
        hint='write name = "…" in it, or rename it: up to 63 of a to z, 0 to 9, _ and -, then '
        ".toml",
    )


def read_file(path: Path) -> dict[str, Any]:
    """Return the tree of a settings file, whose names are known. Raises SettingsError."""
    tree = _read(path)
    _check_names(tree, Settings, str(path), ())
    return tree


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # only here: the settings may come from the environment alone

    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise SettingsError(
            f"settings file {path} does not exist", hint="give another with -c FILE, or create it"
        ) from None
    except tomllib.TOMLDecodeError as error:
        # The parser's message quotes the text around the fault, which may be a password.
        place = re.search(r"at line \d+, column \d+", str(error))
        raise SettingsError(
            f"settings file {path} is not valid TOML {place[0] if place else ''}".rstrip(),
            hint="see https://toml.io for the syntax",
        ) from None
    except RecursionError:
        raise SettingsError(
            f"settings file {path} is nested too deeply", hint="settings are two levels deep"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(
            f"settings file {path} cannot be read: {reason}",
            hint="check the path and its permissions",
        ) from None


@functools.cache
def _sections() -> dict[str, type[msgspec.Struct]]:
    return {info.name: info.type for info in _info(Settings) if _is_struct(info.type)}


@functools.cache
def _info(section: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    # Of one section alone: `msgspec.inspect` would describe all that is in it, which takes long.
    return msgspec.structs.fields(section)


# Read from the environment by the key provider or by `load`; they are not keys of the file.
_ROOTS = ("pseudonym_root", "vault_root")
_NOT_SETTINGS = re.compile(
    r"^SQS2PG_(CONFIG|NATIVE|KEYS__(PSEUDONYM|VAULT)_ROOT(_V[1-9]\d{0,3})?)$"
)


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the variable of each setting, by its dotted name, and the tree of their values."""
    variables: dict[str, str] = {}
    tree: dict[str, Any] = {}
    owner: type[msgspec.Struct]
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or _NOT_SETTINGS.match(variable):
            continue
        sections = _sections()
        parts = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if len(parts) == 1:
            target, owner, prefix = tree, Settings, ENVIRONMENT_PREFIX
            names = ["config", *(f"{section}__…" for section in sections)]
        elif len(parts) == 2 and parts[0] in sections:
            target, owner = tree.setdefault(parts[0], {}), sections[parts[0]]
            prefix = f"{ENVIRONMENT_PREFIX}{parts[0].upper()}__"
            names = list(_ROOTS) if parts[0] == "keys" else []
        else:
            raise _unknown(variable, ENVIRONMENT_PREFIX, [f"{s.upper()}__…" for s in sections])
        known = [i.name for i in _info(owner) if i.name not in sections and _items(i.type) is None]
        if parts[-1] not in known:
            raise _unknown(variable, prefix, [name.upper() for name in (*known, *names)])
        target[parts[-1]] = value
        variables[".".join(parts)] = variable
    return variables, tree


def _split_lists(tree: dict[str, Any]) -> None:
    """Split a text into a list at commas: a variable can give a list in no other way."""
    if not tree:
        return
    for section, kind in _sections().items():
        values = tree.get(section)
        if not isinstance(values, dict):
            continue
        for info in _info(kind):
            value = values.get(info.name)
            if isinstance(value, str) and get_origin(_bare(info.type)) is tuple:
                values[info.name] = [word.strip() for word in value.split(",") if word.strip()]


def _lower_words(tree: dict[str, Any]) -> None:
    """Take the words of `[log]` in either case: INFO is what other programs call the level."""
    words = tree.get("log")
    if isinstance(words, dict):
        tree["log"] = {k: v.lower() if isinstance(v, str) else v for k, v in words.items()}


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if not isinstance(value, Mapping):
            base[key] = value
        elif isinstance(inner := base.setdefault(key, {}), dict):
            _merge(inner, value)
        # else: the file has a value where a section belongs; the conversion says so


def _check_names(
    tree: Mapping[str, Any], section: type[msgspec.Struct], origin: str, at: tuple[str, ...]
) -> None:
    known = {info.encode_name: info.type for info in _info(section)}
    prefix = "".join(f"{part}." for part in at)
    for key, value in tree.items():
        if key not in known:
            raise _unknown(prefix + key, prefix, list(known), origin)
        inner = known[key]
        if isinstance(inner, UnionType):
            inner = next(filter(_is_struct, get_args(inner)), inner)
        if _is_struct(inner) and isinstance(value, Mapping):
            _check_names(value, inner, origin, (*at, key))
        elif (items := _items(inner)) and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _check_names(item, items, origin, (*at, f"{key}[{index}]"))


def _items(kind: Any) -> type[msgspec.Struct] | None:
    """Return the struct of a list of tables; None for any other type."""
    kind = _bare(kind)
    item = _bare(get_args(kind)[0]) if get_origin(kind) is tuple else None
    return item if _is_struct(item) else None


def _bare(kind: Any) -> Any:
    """Return a type without its constraints and description."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _unknown(
    key: str, prefix: str, known: list[str], origin: str = "the environment"
) -> SettingsError:
    # Compared without the common prefix, which would make any two names look alike.
    near = nearest(key.removeprefix(prefix), known, cutoff=0.5)
    hint = (
        f"did you mean {prefix}{near}?"
        if near
        else f"known: {', '.join(prefix + name for name in sorted(known))}"
    )
    return SettingsError(f"unknown setting {key} in {origin}", code="unknown_setting", hint=hint)


def _explain(
    error: msgspec.ValidationError, origin: str, variables: Mapping[str, str]
) -> SettingsError:
    # msgspec says "Expected `int` >= 2 - at `$.source.visibility_timeout_s`". For enumerations it
    # quotes the wrong value, which may be a misplaced secret: only the place and the rule are kept.
    text = str(error)
    match = re.search(r"at `\$\.?([^`]*)`", text)
    place = match[1] if match else "?"
    rule = (
        "is not one of the allowed values"
        if "Invalid enum value" in text
        else text.split(" - at ", 1)[0]
    )
    named = variables.get(place.partition("[")[0], origin)
    known = "`sqs2pg config schema` lists every key, its type and range"
    schema = _schema_of(place)
    says = [
        *([f"{place}: {schema['description']}"] if "description" in schema else []),
        *([f"allowed: {', '.join(map(str, schema['enum']))}"] if "enum" in schema else []),
    ]
    return SettingsError(f"setting {place} in {named}: {rule}", hint=". ".join([*says, known]))


@functools.cache
def _schema() -> dict[str, Any]:
    return msgspec.json.schema(Settings)


def _schema_of(place: str) -> dict[str, Any]:
    """Return the schema of a key such as `field[...].source`; empty where there is none."""
    schema = _schema()
    node: dict[str, Any] = {"$ref": "#/$defs/Settings"}
    for name in re.sub(r"\[[^]]*\]", "", place).split("."):
        node = node.get("items", node)
        reference = node.get("$ref", "").rpartition("/")[2]
        node = schema["$defs"].get(reference, {}).get("properties", {}).get(name, {})
    return node
