"""`sqs2pg support-bundle`: one zip file that is safe to attach to a public issue.

Its content is chosen, not filtered: numbers, codes, versions, and settings that are numbers,
switches, words of a fixed set, or defaults. For a free text (a name, an address, a path, a secret)
it says only whether it is set. The check report's sentences may name things, so every text of the
settings and the environment is removed from them, and what looks like an address. Before the file
is written, its whole content is searched for the secrets of this environment; if one is found, no
file is written.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
import zipfile
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sqs2pg import __version__
from sqs2pg.cli.options import config_option, json_option, print_json, read_settings, run_async
from sqs2pg.cli.redaction import HIDDEN, private_texts, redacted, secrets, strike
from sqs2pg.cli.top import StatusClient, status_at
from sqs2pg.errors import FatalFault, Sqs2pgError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.status.snapshot import Snapshot

_OURS = (
    *("botocore", "click", "cryptography", "httptools", "msgspec", "prometheus-client"),
    *("psycopg", "psycopg-binary", "rich", "structlog", "uvloop", "opentelemetry-sdk", "ray"),
)

README = """A support bundle of sqs2pg, made for a public issue.

settings.json   numbers, switches, defaults; a free text is told as "(set)"
versions.json   of sqs2pg, Python, the platform and the libraries
environment.json  names of the variables that are set, never a value
check.json      what `sqs2pg check` found, names and addresses struck out
metrics.txt     /metrics of the running pipeline, if one answered
state.json      counts, stages, faults by code, quarantine by reason
No message, no value of a message, no key, no password, no host name is in it. Look for yourself.
"""


@click.command("support-bundle")
@click.argument("url", required=False)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="The zip file to write."
)
@config_option
@json_option
def support_bundle(url: str | None, out: Path | None, config: Path | None, as_json: bool) -> None:
    """Write a zip file that is safe to attach to a public issue.

    URL is the status address of the running pipeline; by default that of the settings.
    """
    path = out or Path(f"sqs2pg-support-{time.strftime('%Y%m%d-%H%M%S')}.zip")
    files = collect(url, config)
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, text in files.items():
                bundle.writestr(name, text)
    except OSError as error:
        raise FatalFault(
            f"{path} cannot be written: {error.strerror}", code="bundle", hint="give another: -o"
        ) from None
    if as_json:
        print_json({"file": str(path), "files": sorted(files)})
    else:
        print(f"written: {path} ({', '.join(sorted(files))})")
        print("it holds no message, no key and no host name; look before you attach it")


def collect(url: str | None, config: Path | None) -> dict[str, str]:
    """Return the bundle's files by name.

    A file whose content is missing (no pipeline answers, wrong settings) holds a code instead,
    so that a broken installation gets a bundle, too. Raises FatalFault if a secret were in it.
    """
    settings, problem = _load(config)
    private = sorted(set(private_texts(settings)), key=len, reverse=True)
    files = {
        "README.txt": README,
        "settings.json": _json(redacted(settings) if settings else {"error": problem}),
        "versions.json": _json(_versions()),
        "environment.json": _json(_environment()),
        "check.json": _json(run_async(_check(config, private))),
    } | _status(url, config)
    for name, text in files.items():
        for secret in secrets(settings):
            if secret in text:
                raise FatalFault(
                    f"a secret of this environment would be in {name}: nothing was written",
                    code="bundle_secret",
                    hint="this is a fault of sqs2pg: please report it, without the file",
                )
    return files


def _load(config: Path | None) -> tuple[Settings | None, str]:
    try:
        return read_settings(config), ""
    except Sqs2pgError as error:
        return None, error.code


def _status(url: str | None, config: Path | None) -> dict[str, str]:
    """Return the files about the running pipeline, which may end between two of our requests."""
    try:
        status = status_at(url, config)
        return {"state.json": _json(_state(status)), "metrics.txt": _metrics(status)}
    except Sqs2pgError as error:
        return {
            "state.json": _json({"answered": error.code}),
            "metrics.txt": f"# no pipeline answered: {error.code}\n",
        }


def _versions() -> dict[str, Any]:
    installed = {}
    for name in _OURS:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "sqs2pg": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "packages": installed,
    }


def _environment() -> list[str]:
    ours = ("AWS_", "PG", "SQS2PG_", "OTEL_")
    names = {"DATABASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "KUBERNETES_SERVICE_HOST"}
    return sorted(name for name in os.environ if name.startswith(ours) or name in names)


async def _check(config: Path | None, private: list[str]) -> list[dict[str, str]]:
    from sqs2pg.cli.doctor.checks import CHECKS
    from sqs2pg.cli.doctor.context import Context
    from sqs2pg.cli.doctor.runner import run as run_checks

    context = Context(config, partial(read_settings, config))
    async with context:
        findings = [finding async for finding in run_checks(list(CHECKS), context)]
    return [
        {
            "name": strike(finding.name, private),
            "status": finding.status,
            "detail": strike(finding.public or finding.detail, private),
            "remedy": strike(finding.remedy, private),
        }
        for finding in findings
    ]


_NAMING = re.compile(r'\b(pipeline|queue|table)="((?:[^"\\]|\\.)*)"')


def _metrics(status: StatusClient) -> str:
    """Return the metrics, with a number in place of each name of a pipeline, queue or table."""
    text = status.read("/metrics").decode("utf-8", "replace")
    numbers: dict[tuple[str, str], int] = {}

    def numbered(found: re.Match[str]) -> str:
        label, name = found.groups()
        return f'{label}="{numbers.setdefault((label, name), len(numbers) + 1)}"'

    kept = [line for line in text.splitlines() if line.startswith(("sqs2pg_", "# "))]
    return "".join(_NAMING.sub(numbered, line) + "\n" for line in kept)


def _state(status: StatusClient) -> dict[str, Any]:
    snapshot: Snapshot = status.moment().snapshot
    state: dict[str, Any] = msgspec.to_builtins(snapshot)
    for name in ("pipeline", "queue", "table"):
        state[name] = HIDDEN
    if state["pause"]:
        state["pause"] |= {"by": HIDDEN, "reason": HIDDEN}
    for worker in state["workers"]:
        worker["host"] = HIDDEN
    return state


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"
