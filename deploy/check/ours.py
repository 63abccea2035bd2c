"""What no schema knows: an artefact uses our commands and settings, and contains no secret."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from sqs2pg.cli import cli
from sqs2pg.errors import Sqs2pgError
from sqs2pg.settings import Settings, load, load_pipelines

ROOT = Path(__file__).parents[2]
SECRETS = re.compile(r"(PASSWORD|SECRET_ACCESS_KEY|_ROOT(_V\d+)?|SINK__DSN)$")


def command_problems(arguments: Sequence[str]) -> Iterator[str]:
    """Yield why `sqs2pg ARGUMENTS` is not one of our command lines."""
    command: click.Command = cli
    context = None
    rest = list(arguments)
    try:
        while isinstance(command, click.Group):
            context = click.Context(command, parent=context)
            found = command.get_command(context, rest.pop(0))
            assert found is not None
            command = found
        command.make_context(command.name, rest, parent=context)
    except (click.ClickException, IndexError, AssertionError) as error:
        yield f"not a command of ours: {' '.join(arguments)} ({type(error).__name__})"


def settings_of(environment: Mapping[str, str], text: str = "") -> Settings | str:
    """Return the settings from an environment and a TOML text, or why there are none."""
    ours = {name: value for name, value in environment.items() if name.startswith("SQS2PG_")}
    ours.pop("SQS2PG_CONFIG", None)
    file = None
    if text:
        file = ROOT / "build" / "deploy-check" / "sqs2pg.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    try:
        return load(file, ours, discover=False)
    except Sqs2pgError as error:
        return f"{error.what} ({error.hint})"


def settings_of_files(environment: Mapping[str, str], files: Mapping[str, str]) -> Settings | str:
    """Return the settings of `sqs2pg.toml`, or of any one of several pipelines' files by name.

    What belongs to the process is the same in all. Returns why there are none, else.
    """
    if files.keys() <= {"sqs2pg.toml"}:
        return settings_of(environment, files.get("sqs2pg.toml", ""))
    ours = {name: value for name, value in environment.items() if name.startswith("SQS2PG_")}
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        try:
            return next(iter(load_pipelines([Path(folder)], ours).values()))
        except Sqs2pgError as error:
            return f"{error.what} ({error.hint})"


def open_secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield variables that hold a secret in clear."""
    for name, value in environment.items():
        if (SECRETS.search(name) and value and "resolve:secretsmanager" not in value) or re.search(
            r"://[^/@]+:[^/@]+@", value
        ):
            yield f"{name} holds a secret in the open"
