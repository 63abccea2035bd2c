"""Read the settings of several pipelines that one process runs: a folder's files, or files by name.

Each file is one pipeline. What belongs to the process (`PROCESS`) is the same for all: a file may
leave it out, and files that set it differently are refused. The environment sets what belongs to
the process, and secrets, which it gives to every pipeline; what belongs to one pipeline stands in
its file alone.

Errors name files, keys and the process's own values, never a value that may be a secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqs2pg.errors import SettingsError
from sqs2pg.settings.load import PIPELINE_NAME, build, config_of, from_environment, load, read_file
from sqs2pg.settings.sections import Settings

PROCESS = frozenset(
    {"status", "telemetry", "log", "process", "shutdown_grace_s", "start_timeout_s"}
)
"""Sections and keys that belong to the process, not to one of its pipelines."""
_SECRETS = ("sink.dsn", "sink.iam_auth", "keys.")
"""Further settings that the environment may give to all: how to log in, and where the keys are."""
_HIDDEN = ("status.token",)

Unusable = Callable[[Path, SettingsError], None]
"""Gets a file that cannot be used, and why."""


def is_several(configs: Sequence[Path]) -> bool:
    """Whether these are the settings of several pipelines: a folder, or more than one file."""
    return len(configs) > 1 or any(config.is_dir() for config in configs)


def chosen(configs: Sequence[Path], environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files and folders to read: those given, else the one that the environment names.

    An empty list stands for `sqs2pg.toml`, or for no file at all.
    """
    named = config_of(environ)
    return list(configs) or ([named] if named else [])


def load_pipelines(
    configs: Sequence[Path] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    unusable: Unusable | None = None,
) -> dict[Path | None, Settings]:
    """Return the settings of each pipeline, by its file; those of one file as `load` does.

    `configs` are files, and folders whose `*.toml` are the files. `unusable` gets each file that
    cannot be used, which is then left out; without it the first one is raised.

    Raises SettingsError for files that do not go together, too: two pipelines with one name, or
    with different values for what belongs to the process.
    """
    configs = chosen(configs, environ)
    if not is_several(configs):
        file = configs[0] if configs else None
        return {file: load(file, environ)}
    variables, variable_tree = from_environment(environ)
    _check_variables(variables)
    trees: dict[Path, dict[str, Any]] = {}
    found: dict[Path | None, Settings] = {}
    for file in _files(configs):
        try:
            tree = read_file(file)
            settings = build(_copy(tree), file, variables, variable_tree)
            _check_name(file, settings)
        except SettingsError as error:
            if unusable is None:
                raise
            unusable(file, error)
        else:
            trees[file], found[file] = tree, settings
    _check_distinct(found)
    shared = _shared(trees)
    if any(shared.values()):
        for file, tree in trees.items():
            found[file] = build(_copy(tree), file, variables, shared, variable_tree)
    return found


def load_pipeline(
    config: Path | None = None, pipeline: str = "", environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings of one pipeline: of a file, or the one of this name in a folder.

    Raises SettingsError as `load_pipelines`, and where no pipeline has the name, or a folder has
    several and none is named.
    """
    configs = [config] if config else []
    if pipeline:
        return load_named(configs, pipeline, environ)
    found = list(load_pipelines(configs, environ).values())
    return found[0] if len(found) == 1 else pick(found, "")


def load_named(
    configs: Sequence[Path], pipeline: str, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings of the pipeline with this name. Another one's file need not be usable.

    Raises SettingsError as `load_pipeline`; where no pipeline has the name, the error of a file
    that cannot be used, since the name may be in that one.
    """
    refused: dict[Path, SettingsError] = {}
    found = list(load_pipelines(configs, environ, unusable=refused.__setitem__).values())
    if refused and pipeline not in {settings.pipeline_name for settings in found}:
        raise next(iter(refused.values()))
    return pick(found, pipeline)


def pick(found: Sequence[Settings], pipeline: str) -> Settings:
    """Return the one with this name. Raises SettingsError."""
    names = [settings.pipeline_name for settings in found]
    if pipeline in names:
        return found[names.index(pipeline)]
    known = ", ".join(sorted(names))
    if pipeline:
        raise SettingsError(f"no pipeline is called {pipeline}", hint=f"there are: {known}")
    raise SettingsError(
        "the settings are those of several pipelines", hint=f"name one with --pipeline: {known}"
    )


def _files(configs: Sequence[Path]) -> Iterator[Path]:
    """Yield the files in order, each once. Raises SettingsError for a folder without one."""
    seen: set[Path] = set()
    for config in configs:
        # An editor's and Kubernetes' own files there begin with a dot.
        inside = sorted(f for f in config.glob("*.toml") if not f.name.startswith("."))
        if config.is_dir() and not inside:
            raise SettingsError(
                f"folder {config} has no settings file", hint="one file NAME.toml per pipeline"
            )
        for file in inside if config.is_dir() else [config]:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _check_variables(variables: Mapping[str, str]) -> None:
    for name, variable in variables.items():
        if name.partition(".")[0] not in PROCESS and not name.startswith(_SECRETS):
            raise SettingsError(
                f"{variable} sets {name} for one pipeline, and there are several",
                hint=f"write {name} into each pipeline's file; beside them the environment sets "
                f"{', '.join(sorted(PROCESS))}, sink.dsn and keys",
            )


def _check_name(file: Path, settings: Settings) -> None:
    if not PIPELINE_NAME.fullmatch(settings.pipeline_name):
        raise SettingsError(
            f"{file}: {settings.pipeline_name} cannot be the name of one of several pipelines",
            hint='set name = "…" in it: up to 63 of a to z, 0 to 9, _ and -',
        )


def _check_distinct(found: Mapping[Path | None, Settings]) -> None:
    first: dict[str, Path | None] = {}
    for file, settings in found.items():
        other = first.setdefault(settings.pipeline_name, file)
        if other != file:
            raise SettingsError(
                f"{other} and {file} are both called {settings.pipeline_name}",
                hint="give one of them another `name`",
            )


def _shared(trees: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the files say of the process, as one tree. Raises SettingsError."""
    told: dict[str, tuple[Path, Any]] = {}
    for file, tree in trees.items():
        for name, value in _flat(tree):
            other, before = told.setdefault(name, (file, value))
            if before != value:
                values = f"{before!r} and {value!r}"
                hidden = name in _HIDDEN or "@" in values  # a URL with a password
                raise SettingsError(
                    f"{other} and {file} disagree on {name}, which belongs to the process"
                    + ("" if hidden else f": {values}"),
                    hint="set it in one of them, alike in both, or in the environment alone",
                )
    shared: dict[str, Any] = {}
    for name, (_, value) in told.items():
        section, _, key = name.rpartition(".")
        (shared.setdefault(section, {}) if section else shared)[key] = value
    return shared


def _flat(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in sorted(PROCESS & tree.keys()):
        value = tree[name]
        if not isinstance(value, Mapping):
            yield name, value
            continue
        for key, inner in sorted(value.items()):
            same = inner.lower() if name == "log" and isinstance(inner, str) else inner
            yield f"{name}.{key}", same


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree whose sections may be changed."""
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in tree.items()}
