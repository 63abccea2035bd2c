"""Environment provider: roots from variables, for platforms that pass secrets that way.

`SQS2PG_KEYS__PSEUDONYM_ROOT` and `SQS2PG_KEYS__VAULT_ROOT` are version 1 of their series; the
suffix `_V2` (`_V3`, …) gives further versions. Each is base64 of 32 bytes, standard or URL-safe;
an empty one counts as not set. Other processes of the same user can read a process's environment,
and its children inherit it, so a file is the better place.

Never quotes a variable's value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqs2pg.errors import KeyFault
from sqs2pg.keys.keyring import Keyring, root_from_base64

_VARIABLE = re.compile(r"SQS2PG_KEYS__(PSEUDONYM|VAULT)_ROOT(?:_V([1-9][0-9]{0,3}))?\Z")


def load(environ: Mapping[str, str]) -> Keyring:
    """Return the keyring of the environment's variables.

    Raises KeyFault: `key_missing`, `key_encoding`, `key_twice` if two variables give the same
    version, and what `Keyring` raises.
    """
    series: dict[str, dict[int, bytes]] = {"pseudonym": {}, "vault": {}}
    for variable, text in sorted(environ.items()):
        match = _VARIABLE.match(variable)
        if not match or not text.strip():
            continue
        roots, version = series[match[1].lower()], int(match[2] or 1)
        if version in roots:
            raise KeyFault(
                f"{variable} gives a version that another variable gives too",
                code="key_twice",
                hint="a variable without a suffix is version 1; remove one of the two",
            )
        roots[version] = root_from_base64(text, variable)
    if not series["pseudonym"]:
        raise KeyFault(
            "SQS2PG_KEYS__PSEUDONYM_ROOT is not set",
            code="key_missing",
            hint="set it to base64 of 32 random bytes, or make a key file with `sqs2pg keys init`",
        )
    return Keyring(series["pseudonym"], series["vault"], provider="environment")
