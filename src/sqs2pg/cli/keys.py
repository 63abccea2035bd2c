"""`sqs2pg keys init | list`."""

from __future__ import annotations

from pathlib import Path

import click

from sqs2pg import assembly
from sqs2pg.cli import rotation
from sqs2pg.cli.options import config_option, json_option, print_json, run_async
from sqs2pg.keybook import recorded
from sqs2pg.keys import provider_file
from sqs2pg.settings import Settings, load

DEFAULT_FILE = Path("sqs2pg.keys")


@click.group()
def keys() -> None:
    """Make and list the keys that mask values."""


keys.add_command(rotation.rewrap)
keys.add_command(rotation.rekey)


@keys.command()
@config_option
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Where to.")
def init(config: Path | None, file: Path | None) -> None:
    """Make a key file with new random roots, readable by its owner alone."""
    settings = load(config)
    path = file or (Path(settings.keys.file) if settings.keys.file else DEFAULT_FILE)
    keyring = provider_file.create(path)
    print(f"made {path}: pseudonym root v1 and vault root v1")
    for series in ("pseudonym", "vault"):
        print(f"{series:10} v1  fingerprint {keyring.fingerprints(series)[1]}")
    print("keep a copy where the database's backups are not: without it no token can be made again")
    if not settings.keys.file:
        print(f'use it with SQS2PG_KEYS__FILE={path}, or keys.file = "{path}" in the settings')


@keys.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List key versions: fingerprint, in this keyring, on record, active. Never a key."""
    rows = run_async(_list(load(config)))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        marks = [name for name in ("active", "recorded", "held") if row[name]]
        print(f"{row['series']:10} v{row['version']}  {row['fingerprint']}  {', '.join(marks)}")


async def _list(settings: Settings) -> list[dict[str, object]]:
    session = await assembly.connect(settings)
    try:
        keyring = assembly.keyring_of(settings, assembly.endpoints(settings))
        on_record = await recorded(session)
    finally:
        await session.close()
    held = {
        (series, version): mark
        for series in ("pseudonym", "vault")
        for version, mark in keyring.fingerprints(series).items()
    }
    return [
        {
            "series": series,
            "version": version,
            "fingerprint": held.get((series, version)) or on_record[series, version][0],
            "active": on_record.get((series, version), ("", False))[1],
            "recorded": (series, version) in on_record,
            "held": (series, version) in held,
        }
        for series, version in sorted({*held, *on_record})
    ]
