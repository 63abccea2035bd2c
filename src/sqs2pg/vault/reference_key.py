"""The key of subject references: random, made once per database, kept there wrapped.

It is never rotated: otherwise a person's later messages would not be found under the reference of
the earlier ones. Only its wrapping is: `keys rewrap` puts the key under the active vault root.
"""

from __future__ import annotations

import secrets

from sqs2pg.errors import KeyFault, Sqs2pgError
from sqs2pg.keys.aead import WrappingKey
from sqs2pg.keys.derive import ROOT_BYTES, Secret
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.crypto import key_encryption_key, unwrap_reference_key, wrap_reference_key

_READ = "SELECT wrapped, wrapped_by FROM pii.reference_key()"
_OFFER = "SELECT pii.set_reference_key(%s, %s)"


async def reference_key(session: Session, keyring: Keyring, *, make: bool = True) -> Secret:
    """Return the key. Where there is none and `make` is true, make it now.

    Without a vault root it is wrapped under the pseudonym root, as quarantined bodies are. Raises
    KeyFault where the root that it is wrapped under is missing or differs, FatalFault where the
    database refuses.
    """
    with explained():
        [(wrapped, wrapped_by)] = await session.execute(_READ)
        if wrapped is None and make:
            label, _ = keyring.quarantine_key()
            offered = wrap_reference_key(
                kek_of_label(keyring, label), secrets.token_bytes(ROOT_BYTES)
            )
            await session.execute(_OFFER, [offered, label])
            [(wrapped, wrapped_by)] = await session.execute(_READ)
    if wrapped is None:
        raise KeyFault(
            "the database has no subject references yet: nothing was sealed",
            code="vault_empty",
            hint="they are made when a pipeline first runs",
        )
    try:
        return unwrap_reference_key(kek_of_label(keyring, wrapped_by), wrapped)
    except KeyFault:
        raise
    except Sqs2pgError:
        raise KeyFault(
            f"the key of subject references does not open under {wrapped_by}",
            code="key_fingerprint",
            hint="use the keys that this database was filled with",
        ) from None


def kek_of_label(keyring: Keyring, label: str) -> WrappingKey:
    """Return the key-encryption key of a label, `SERIES:VERSION`. Raises KeyFault."""
    series, _, version = label.partition(":")
    return key_encryption_key(keyring, series, int(version))
