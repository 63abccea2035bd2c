"""Development key: made once in a checkout, so that `demo` and `--local` need no set-up.

It stays in `.sqs2pg/dev.keys`, so that tokens are the same in every run. It protects nothing, since
anyone with the checkout has it. So it is refused if an endpoint is on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sqs2pg.errors import KeyFault
from sqs2pg.keys import provider_file
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.loopback import is_loopback

FOLDER = Path(".sqs2pg")
FILE_NAME = "dev.keys"

_PRESENTABLE = re.compile(r"[A-Za-z0-9.:_-]{1,253}\Z")
_PORT = re.compile(r"(?P<host>[^:\[\]]*|\[[^\]]*\])(?::[0-9]{1,5})?\Z")


def load_or_create(folder: Path = FOLDER) -> Keyring:
    """Return the development keyring of a folder; the first call makes it.

    Two processes that start at once get the same key. Raises what `provider_file` raises.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFault(
            f"the folder {folder} for the development key cannot be made: {error.strerror}",
            code="key_folder",
            hint="run it in a folder of your own, or give a key file with SQS2PG_KEYS__FILE",
        ) from None
    if not path.exists():
        try:
            return provider_file.create(path, development=True)
        except KeyFault as fault:
            if fault.code != "key_file_exists":
                raise
    return provider_file.load(path)


def refuse_development_key(endpoints: Sequence[str], allow: bool) -> None:
    """Raise KeyFault `development_key` unless every endpoint is loopback, or `allow` is set.

    An endpoint is a host (`127.0.0.1`, `::1`, `localhost`), host:port, an http(s) URL, the path
    of a Unix socket, or empty (libpq's default socket). Resolve a database's DSN to its hosts
    first: any other text counts as another machine, and so does any other name, whatever it
    resolves to.
    """
    if allow:
        return
    for endpoint in endpoints:
        host = _host(endpoint)
        if host is not None and is_loopback(host):
            continue
        shown = host if host and _PRESENTABLE.match(host) else "an endpoint"
        raise KeyFault(
            f"the development key is refused: {shown} is not this machine",
            code="development_key",
            hint="make a key with `sqs2pg keys init` and set SQS2PG_KEYS__FILE, or set "
            "keys.allow_development = true if the data there needs no protection",
        )


def _host(endpoint: str) -> str | None:
    """Return the host of an endpoint; None if it is unclear."""
    if endpoint.startswith(("/", "@")) or not endpoint:  # libpq: "@" is an abstract socket
        return endpoint
    if endpoint.lower().startswith(("http://", "https://")):
        try:
            return urlsplit(endpoint).hostname or None
        except ValueError:
            return None
    if endpoint.count(":") > 1 and not endpoint.startswith("["):
        return endpoint  # a bare IPv6 address
    match = _PORT.match(endpoint)
    return (match["host"].strip("[]") or None) if match else None
