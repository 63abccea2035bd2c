"""Check of the vault: whether the data keys of people open."""

from __future__ import annotations

import time

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok
from sqs2pg.cli.options import counted, listed
from sqs2pg.vault.batching import FIRST_SUBJECT
from sqs2pg.vault.crypto import KeyEncryptionKeys, SubjectKeyFault

LOOK_S_MAX = 3.0
"""How long keys are tried: some 100,000. `keys rewrap` tries all that are under an older root."""
PAGE_ROWS = 5_000
NAMED_MAX = 10
"""References in the report."""

_MAY = "SELECT has_table_privilege('pii.subject_key', 'SELECT')"
_NEXT = """SELECT encode(uuid_send(subject), 'hex'), generation, wrapped_key, key_version
FROM pii.subject_key WHERE subject > %s::uuid AND wrapped_key IS NOT NULL
ORDER BY subject LIMIT %s"""


async def check_subject_keys(context: Context) -> list[Finding]:
    """Whether the data keys open under the keyring; the references of those that do not."""
    name = "vault keys"
    if not context.settings.vault.enabled:
        return []
    [(may,)] = await context.query(_MAY)
    if not may:
        return [ok(name, "not tried: only the owner of schema pii may read them")]
    keks = KeyEncryptionKeys(context.keyring())
    damaged: list[str] = []
    tried, after, until = 0, FIRST_SUBJECT, time.monotonic() + LOOK_S_MAX
    while rows := await context.query(_NEXT, [after, PAGE_ROWS]):
        for subject, generation, wrapped, version in rows:
            try:
                keks.open_data_key(version, wrapped, subject, generation)
            except SubjectKeyFault:
                damaged.append(subject)
        tried, after = tried + len(rows), rows[-1][0]
        if time.monotonic() > until:
            break
    if not damaged:
        return [ok(name, f"{counted(tried, 'data key')} tried, all open")]
    return [
        fail(
            name,
            f"{len(damaged):,} of {counted(tried, 'data key')} "
            f"{'does' if len(damaged) == 1 else 'do'} not open: subject "
            f"{listed(damaged, NAMED_MAX)}",
            "messages about these people are held. Restore their rows of pii.subject_key from a "
            "backup, add a vault root that is missing, or erase them",
        )
    ]
