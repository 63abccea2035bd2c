"""Checks of the keyring: the keys are there, they are those on record, and their provider."""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.keys.keyring import SERIES
from sqs2pg.postgres.key_registry import recorded_keys


async def check_keys(context: Context) -> list[Finding]:
    """Whether the keys can be loaded and pass the self-test; how good their provider is."""
    keyring = context.load_keyring()
    detail = f"{keyring!r}"
    if keyring.development:
        remedy = "for real data, make a key with `sqs2pg keys init`"
        return [warn("keys", f"{detail}: a development key", remedy)]
    if keyring.provider == "environment":
        remedy = "a file or KMS is a better place: environments are inherited and can be read"
        return [warn("keys", f"{detail}: from environment variables", remedy)]
    if context.settings.vault.enabled and not keyring.versions("vault"):
        remedy = "add a vault root: `sqs2pg keys init` makes both"
        return [fail("keys", f"{detail}: the vault is enabled, but there is no vault root", remedy)]
    return [ok("keys", detail)]


async def check_key_record(context: Context) -> Finding:
    """Whether the keys are those that the database was filled with, its active versions held."""
    name = "keys on record"
    keyring = context.keyring()
    record = await recorded_keys(await context.session())
    if not record:
        return ok(name, "none yet: the first start records these")
    for series in SERIES:
        held = keyring.fingerprints(series)
        for (which, version), (fingerprint, active) in sorted(record.items()):
            if which != series:
                continue
            if version in held and held[version] != fingerprint:
                remedy = "use the keys that this database was filled with"
                return fail(name, f"{series} root v{version} is not the one on record", remedy)
            if active and version not in held and (held or series == "pseudonym"):
                remedy = "add that version to the keyring of this process"
                return fail(name, f"the active {series} root, v{version}, is not held", remedy)
    current = ", ".join(f"{s} v{v}" for (s, v), (_, active) in sorted(record.items()) if active)
    return ok(name, f"active: {current}; fingerprints agree")
