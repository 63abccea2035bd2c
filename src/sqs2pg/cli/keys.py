"""`sqs2pg keys init | list | rotate`: make, list and rotate the roots.

Prints roots only for the provider `environment`, once: nothing else stores them.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import click

from sqs2pg.cli import keys_rotation
from sqs2pg.cli.options import (
    CommandGroup,
    config_option,
    json_option,
    load_settings,
    print_json,
    run_async,
)
from sqs2pg.errors import SettingsError
from sqs2pg.keys import provider_development
from sqs2pg.keys.derive import ROOT_BYTES
from sqs2pg.keys.keyring import SERIES
from sqs2pg.keys.providers import DEFAULT_FILE, add_root, create_keyring
from sqs2pg.mask.registry import KEYED, properties
from sqs2pg.settings import Field, Settings


@click.group(cls=CommandGroup)
def keys() -> None:
    """Make, list and rotate the keys that mask values."""


keys.add_command(keys_rotation.rewrap)
keys.add_command(keys_rotation.rekey)


@keys.command()
@config_option
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), help="The key file to make."
)
@click.option(
    "--provider",
    type=click.Choice(["file", "environment", "aws-kms", "secrets-manager"]),
    help="Else keys.provider of the settings.",
)
@click.option("--kms-key", help="Id, ARN or alias/NAME of the KMS key; else keys.kms_key.")
@click.option("--secret", help="Name of the secret; else keys.secret.")
def init(
    config: Path | None,
    file: Path | None,
    provider: str | None,
    kms_key: str | None,
    secret: str | None,
) -> None:
    """Make new random roots: a file readable by its owner alone, or in AWS KMS or Secrets Manager.

    Never replaces keys that are there.
    """
    settings = load_settings(config)
    location = _KeyLocation(settings, provider, file, kms_key, secret)
    if location.provider == "environment":
        _print_variables()
        return
    keyring = create_keyring(
        location.provider, file=location.file, kms_key=location.kms_key, secret=location.secret
    )
    print(f"made {location}: pseudonym root v1 and vault root v1")
    for series in SERIES:
        print(f"{series:10} v1  fingerprint {keyring.fingerprints(series)[1]}")
    print("keep a copy where the database's backups are not: without it no token can be made again")
    print(*location.how_to_use(), sep="\n", end="\n" if location.how_to_use() else "")


class _KeyLocation:
    """Where keys are made: by the options, else the settings, else in a file here."""

    def __init__(
        self,
        settings: Settings,
        provider: str | None = None,
        file: Path | None = None,
        kms_key: str | None = None,
        secret: str | None = None,
    ) -> None:
        keys = self._keys = settings.keys
        known = keys.provider if keys.provider not in ("auto", "development") else "file"
        self.provider = provider or known
        self.file = file or (Path(keys.file) if keys.file else DEFAULT_FILE)
        self.kms_key = kms_key or keys.kms_key
        self.secret = secret or keys.secret

    def __str__(self) -> str:
        if self.provider == "secrets-manager":
            return f"the secret {self.secret}"
        return f"{self.file}, wrapped by KMS" if self.provider == "aws-kms" else str(self.file)

    def how_to_use(self) -> list[str]:
        """Return lines that tell what the settings still lack."""
        lines = []
        if self.provider != "secrets-manager" and not self._keys.file:
            lines.append(
                f"use it with SQS2PG_KEYS__FILE={self.file}, "
                f'or keys.file = "{self.file}" in the settings'
            )
        if self.provider != "file" and self._keys.provider != self.provider:
            lines.append(
                f"and SQS2PG_KEYS__PROVIDER={self.provider}, "
                f'or keys.provider = "{self.provider}" in the settings'
            )
        if self.provider == "secrets-manager" and self._keys.secret != self.secret:
            lines.append(f"and SQS2PG_KEYS__SECRET={self.secret}")
        return lines


def _print_variables() -> None:
    for series in SERIES:
        root = base64.b64encode(os.urandom(ROOT_BYTES)).decode()
        print(f"SQS2PG_KEYS__{series.upper()}_ROOT={root}")
    print(
        "put both lines where your platform keeps secrets; they are stored nowhere",
        file=sys.stderr,
    )


@keys.command()
@click.argument("series", type=click.Choice(SERIES), default="pseudonym")
@config_option
@click.option("--break-joins", is_flag=True, help="Old tokens need not join with new ones.")
@click.option("--prepare", is_flag=True, help="Add the root, and leave the active one.")
@json_option
def rotate(
    series: str, config: Path | None, break_joins: bool, prepare: bool, as_json: bool
) -> None:
    """Add a version of the pseudonym root (or the vault root) and make it the active one.

    Running pipelines use it from their next batch on. Old versions stay, so that what they made
    still opens. If keys are copied to several hosts: --prepare, copy, then rotate. A root that was
    prepared and is not active yet is used; no other one is added.
    """
    settings = load_settings(config)
    result = run_async(_rotate(settings, series, break_joins=break_joins, prepare=prepare))
    if as_json:
        print_json(result)
        return
    version = f"{series} root v{result['version']}, fingerprint {result['fingerprint']}"
    if prepare:
        print(f"{version}, is prepared; v{result['active']} stays active until you rotate again")
        return
    print(f"{version}, is active; running pipelines use it from their next batch on")
    if series == "vault":
        print("bring the data keys under it with `sqs2pg keys rewrap`")
    elif not break_joins:
        print("give old rows their new tokens with `sqs2pg keys rekey`")


async def _rotate(
    settings: Settings, series: str, *, break_joins: bool, prepare: bool
) -> dict[str, object]:
    from sqs2pg.postgres.key_registry import activate, recorded_keys, require_activation
    from sqs2pg.runners.connect import database_and_keys, database_hosts, keyring_of, provider_of

    if series == "pseudonym":
        _refuse_split_keys(settings)
        if not break_joins:
            refuse_broken_joins(settings)
    async with database_and_keys(settings) as (session, _, checked):
        keyring = checked
        known = [version for name, version in await recorded_keys(session) if name == series]
        if not prepare:
            await require_activation(session)  # before a root is added that could not be activated
        prepared = [
            version for version in keyring.versions(series) if version > max(known, default=0)
        ]
        if prepared:
            version = prepared[-1]
        else:
            version = max([*known, *keyring.versions(series), 0]) + 1
            location = _KeyLocation(settings)
            add_root(
                provider_of(settings),
                series,
                version,
                file=_file_of(settings),
                kms_key=location.kms_key,
                secret=location.secret,
            )
            # Read back: it is there to stay.
            keyring = keyring_of(settings, database_hosts(settings))
        if not prepare:
            await activate(session, keyring, series, version)
        before = [
            v
            for (name, v), (_, active) in (await recorded_keys(session)).items()
            if name == series and active
        ]
    return {
        "series": series,
        "version": version,
        "fingerprint": keyring.fingerprints(series)[version],
        "active": before[0] if before else version,
    }


def _file_of(settings: Settings) -> Path:
    from sqs2pg.runners.connect import provider_of

    if provider_of(settings) == "development":
        return provider_development.FOLDER / provider_development.FILE_NAME
    return Path(settings.keys.file) if settings.keys.file else DEFAULT_FILE


def refuse_broken_joins(settings: Settings) -> None:
    """Raise SettingsError if rows from before a rotation could never join with later ones."""
    lost = [
        field.name
        for field in settings.fields
        if field.mask in KEYED
        and properties(field.mask).joinable
        and not _recoverable(settings, field)
    ]
    if lost:
        raise SettingsError(
            f"rotating the pseudonym root would break the joins of {', '.join(lost)}: their "
            "values are kept nowhere, so old rows cannot get new tokens",
            code="breaks_joins",
            hint="enable the vault and set recover = true on the fields, so that "
            "`keys rekey` can; or rotate with --break-joins",
        )


def _refuse_split_keys(settings: Settings) -> None:
    """Raise SettingsError if one key of a state table would have two rows for good.

    Where the values are kept, `keys rekey` makes one row of them.
    """
    split = [
        f"{field.column} of {target.table}"
        for target in settings.targets
        for field in target.fields
        if field.column in target.write.key
        and field.mask in KEYED
        and not _recoverable(settings, field)
    ]
    if split:
        raise SettingsError(
            f"rotating the pseudonym root would give {', '.join(split)} new tokens, and it is in "
            "`key` there: the next version of a row would be another row for good",
            code="breaks_joins",
            hint="enable the vault and set recover = true on the field, with mask = "
            '"pseudonymize": then `keys rekey` makes one row of them; or put a column with '
            'mask = "keep" into `key`',
        )


def _recoverable(settings: Settings, field: Field) -> bool:
    """Whether `keys rekey` can give a field's old tokens new ones."""
    return field.mask == "pseudonymize" and field.recover and settings.vault.enabled


@keys.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List key versions: fingerprint, in this keyring, on record, active. Never a key."""
    rows = run_async(_list(load_settings(config)))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        marks = [name for name in ("active", "recorded", "held") if row[name]]
        if row["held"] and row["recorded"] and row["fingerprint"] != row["recorded_fingerprint"]:
            marks.append(f"but it is {row['recorded_fingerprint']} on record: another root")
        print(f"{row['series']:10} v{row['version']}  {row['fingerprint']}  {', '.join(marks)}")


async def _list(settings: Settings) -> list[dict[str, object]]:
    from sqs2pg.postgres.key_registry import recorded_keys
    from sqs2pg.runners.connect import connected, endpoint_hosts, keyring_of

    async with connected(settings) as session:
        keyring = keyring_of(settings, endpoint_hosts(settings))
        on_record = await recorded_keys(session)
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
            "recorded_fingerprint": on_record.get((series, version), (None, False))[0],
            "held": (series, version) in held,
        }
        for series, version in sorted({*held, *on_record})
    ]
