"""The keys on record in the database: fingerprints and the active version, never a key.

Each start compares the keyring with the record. A root with another fingerprint would silently give
every device a second token, so it stops the process. The first start records the keys it has.
"""

from __future__ import annotations

from sqs2pg.errors import FatalFault, KeyFault, SettingsError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained

_RECORD_FIRST = "SELECT sqs2pg.record_first_key(%s, %s, %s)"
# A lock that only the owner may take, unlike an advisory one. The first record waits for it, too.
_ONE_AT_A_TIME = "LOCK TABLE sqs2pg.key IN SHARE ROW EXCLUSIVE MODE"
_RETIRE = "UPDATE sqs2pg.key SET active = false WHERE series = %s AND active"
_ACTIVATE = """INSERT INTO sqs2pg.key AS k (series, version, fingerprint, active)
VALUES (%s, %s, %s, true)
ON CONFLICT (series, version) DO UPDATE SET active = true
WHERE k.fingerprint = excluded.fingerprint RETURNING 1"""


async def verify_fingerprints(session: Session, keyring: Keyring) -> Keyring:
    """Compare the keyring with the record; return it with the active versions of the database.

    A series without a record is recorded, with its primary version as the active one. Raises
    KeyFault where a fingerprint differs from the recorded one, or where the active version is
    not in the keyring.
    """
    with explained():
        known = await _read(session)
        for series in ("pseudonym", "vault"):
            if not any(name == series for name, _ in known):
                await _record_primary(session, keyring, series)
        known = await _read(session)
    for (series, version), (fingerprint, active) in known.items():
        ours = keyring.fingerprints(series).get(version)
        if ours is not None and ours != fingerprint:
            raise KeyFault(
                f"{series} root version {version} is not the one on record in the database",
                code="key_fingerprint",
                hint="use the key file this database was filled with; tokens of another key "
                "would not join with what is there",
            )
        if active and ours is None and (series == "pseudonym" or keyring.fingerprints(series)):
            raise KeyFault(
                f"the database's active {series} root, version {version}, is not in the keyring",
                code="key_missing",
                hint="add that version to the key file or environment of this process",
            )
        if active and ours is not None:
            keyring = keyring.with_active(series, version)
    return keyring


async def require_activation(session: Session) -> None:
    """Refuse a role that may not make a version active. Raises FatalFault `postgres_42501`."""
    with explained():
        [(may,)] = await session.execute(
            "SELECT has_table_privilege('sqs2pg.key', 'UPDATE') AND "
            "has_function_privilege('sqs2pg.record_act(text,text,text,text)', 'EXECUTE')"
        )
    if not may:
        raise FatalFault(
            "this login may not change the keys on record (SQLSTATE 42501); no root was added",
            code="postgres_42501",
            hint="rotate as the owner of the schema sqs2pg",
        )


async def activate(session: Session, keyring: Keyring, series: str, version: int) -> None:
    """Make a version that the keyring holds the active one of its series, and audit it.

    One transaction: a batch sees the old version or the new one. Raises KeyFault where another
    root is on record under that version, FatalFault where the role may not change the record.
    """
    fingerprint = keyring.fingerprints(series)[version]
    with explained():
        async with session.transaction():
            await session.execute(_ONE_AT_A_TIME)
            await session.execute(_RETIRE, [series])
            if not await session.execute(_ACTIVATE, [series, version, fingerprint]):
                raise KeyFault(
                    f"another {series} root is on record as version {version}",
                    code="key_fingerprint",
                    hint="number the new root with a version that was never used",
                )
            anchor = await audit.append(
                session,
                "keys_rotate",
                subject=f"{series} root v{version}, fingerprint {fingerprint}",
            )
    audit.announce("keys_rotate", anchor)


async def recorded_keys(session: Session) -> dict[tuple[str, int], tuple[str, bool]]:
    """Return the fingerprint of each series and version on record, and whether it is active.

    Raises SettingsError where the database has no such record.
    """
    try:
        with explained():
            return await _read(session)
    except FatalFault as fault:
        if fault.passes:
            raise
        raise SettingsError(
            fault.what, code=fault.code, hint="run `sqs2pg migrate` first"
        ) from None


async def oldest_version(session: Session, series: str) -> int:
    """Return the lowest version of a series on record; new versions always have higher numbers.

    The series must have a record. Raises FatalFault.
    """
    with explained():
        return min(version for name, version in await _read(session) if name == series)


async def refuse_missing_root(
    session: Session, keyring: Keyring, series: str, version: int | None
) -> None:
    """Raise KeyFault where a root that was ever in use is not in the keyring: many need it.

    `version` is what somebody's key names; None where it names none. Raises psycopg.Error.
    """
    if version is not None and (series, version) in await _read(session):
        keyring.root(series, version)


async def _read(session: Session) -> dict[tuple[str, int], tuple[str, bool]]:
    rows = await session.execute("SELECT series, version, fingerprint, active FROM sqs2pg.key")
    return {(series, version): (digest, active) for series, version, digest, active in rows}


async def _record_primary(session: Session, keyring: Keyring, series: str) -> None:
    if fingerprints := keyring.fingerprints(series):
        version = keyring.active(series)
        await session.execute(_RECORD_FIRST, [series, version, fingerprints[version]])
