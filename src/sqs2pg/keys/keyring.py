"""Keyring: the root keys of one process, validated once, then frozen.

There are two series, each with its own versions: `pseudonym` roots make tokens, `vault` roots
encrypt. Rotating one never touches the other. One version of each series is active: the highest,
until the database names another (`with_active`). The others stay, to open what they sealed.

Promises: no root is short, weak, or present twice; `repr` shows versions, never key bytes. No I/O:
the providers read.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from sqs2pg.errors import KeyFault
from sqs2pg.keys import derive
from sqs2pg.keys.derive import ROOT_BYTES, Secret

SERIES = ("pseudonym", "vault")
VERSION_MAX = 9_999
"""The version is part of every token; four digits keep a token within 38 characters."""

_MAKE_ROOT = "make one with `head -c 32 /dev/urandom | base64`, or a file with `sqs2pg keys init`"
# 32 random bytes have fewer than 9 distinct values once in 10**34: that is a pattern, not a key.
_DISTINCT_BYTES_MIN = 9


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Keyring:
    """Roots by series and version, 32 bytes each; `vault` may be empty.

    Raises KeyFault: `key_missing` without a pseudonym root or without the active version,
    `key_short` for a root that does not have 32 bytes, `key_weak` for a pattern, `keys_equal` for
    two equal roots, `key_version` for a version outside 1 to 9,999.
    """

    pseudonym: Mapping[int, bytes]
    vault: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    provider: str = "given"
    """Where the roots came from: file, environment or development."""
    development: bool = False
    """Made for a developer's machine: refused if an endpoint is not loopback."""
    active_versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By series; the default is the highest version."""

    def __post_init__(self) -> None:
        for series in SERIES:
            roots = {version: Secret(root) for version, root in getattr(self, series).items()}
            object.__setattr__(self, series, MappingProxyType(roots))
        if not self.pseudonym:
            raise KeyFault("there is no pseudonym root key", code="key_missing", hint=_MAKE_ROOT)
        _refuse_bad_roots(self._labelled())
        active = {s: max(self.versions(s)) for s in SERIES if self.versions(s)}
        for series, version in self.active_versions.items():
            self.root(series, version)
            active[series] = version
        object.__setattr__(self, "active_versions", MappingProxyType(active))

    def __repr__(self) -> str:
        held = (
            f"{series} "
            + " ".join(f"v{v}{'*' * (v == self.active(series))}" for v in self.versions(series))
            for series in SERIES
            if self.versions(series)
        )
        return f"Keyring({self.provider}: {', '.join(held)})"

    def versions(self, series: str) -> tuple[int, ...]:
        """Return the versions of a series in the keyring, in rising order; empty if none."""
        return tuple(sorted(self._roots(series)))

    def active(self, series: str) -> int:
        """Return the version for new values. Raises KeyFault `key_missing`."""
        try:
            return self.active_versions[series]
        except KeyError:
            raise KeyFault(
                f"there is no {series} root key", code="key_missing", hint=_MAKE_ROOT
            ) from None

    def root(self, series: str, version: int) -> Secret:
        """Return one root, 32 bytes. Raises KeyFault `key_missing`."""
        try:
            return Secret(self._roots(series)[version])
        except KeyError:
            raise KeyFault(
                f"{series} root version {version} is not in the keyring",
                code="key_missing",
                hint="add that version to the key file or environment of this process",
            ) from None

    def with_active(self, series: str, version: int) -> Keyring:
        """Return the same keys with another active version. Raises KeyFault `key_missing`.

        Operators that are already compiled keep the old version: compile them again.
        """
        return dataclasses.replace(self, active_versions={**self.active_versions, series: version})

    def fingerprints(self, series: str) -> dict[int, str]:
        """Return the public fingerprint of each version, 16 hex digits; {} if there is none."""
        return {
            version: derive.fingerprint(self.root(series, version), series)
            for version in self.versions(series)
        }

    def quarantine_key(self) -> tuple[str, Secret]:
        """Return the label (`vault:1`) and the key that now seals quarantined bodies.

        Without a vault root the key is derived from the active pseudonym root; HKDF's info string
        separates it from every pseudonym key. Store the label with the body.
        """
        series = "vault" if self.vault else "pseudonym"
        label = f"{series}:{self.active(series)}"
        return label, self.quarantine_key_of(label)

    def quarantine_key_of(self, label: str) -> Secret:
        """Return the key of a stored label. Raises KeyFault `key_missing`."""
        series, _, number = label.partition(":")
        if series not in SERIES or not number.isdecimal() or len(number) > 4:
            raise KeyFault(
                "the label of the key that a body is sealed with is not series:version",
                code="key_missing",
                hint="open it with the version of sqs2pg that sealed it, or a newer one",
            )
        return derive.quarantine_key(self.root(series, int(number)))

    def _roots(self, series: str) -> Mapping[int, bytes]:
        return {"pseudonym": self.pseudonym, "vault": self.vault}[series]

    def _labelled(self) -> dict[str, Secret]:
        labelled = {}
        for series in SERIES:
            for version in self.versions(series):
                if not 1 <= version <= VERSION_MAX:
                    raise KeyFault(
                        f"a {series} root has a version outside 1 to {VERSION_MAX:,}",
                        code="key_version",
                        hint="number versions from 1 up",
                    )
                labelled[f"{series} root version {version}"] = self.root(series, version)
        return labelled


def root_from_base64(text: str, where: str) -> Secret:
    """Return the bytes of base64, standard or URL-safe, padded or not.

    Raises KeyFault `key_encoding`, which names `where` (a variable or file entry) and never quotes
    the text. The keyring checks the length.
    """
    bare = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return Secret(base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True))
    except (binascii.Error, ValueError):
        pass  # raised below: a fault must not have the text in its context
    raise KeyFault(f"{where} is not base64", code="key_encoding", hint=_MAKE_ROOT)


def root_to_base64(root: bytes) -> str:
    """Return a root as `root_from_base64` reads it: standard base64, padded."""
    return base64.b64encode(root).decode()


def _refuse_bad_roots(labelled: Mapping[str, bytes]) -> None:
    seen: dict[bytes, str] = {}
    for label, root in labelled.items():
        if len(root) != ROOT_BYTES:
            raise KeyFault(
                f"{label} is {len(root)} bytes long, not {ROOT_BYTES}",
                code="key_short",
                hint=_MAKE_ROOT,
            )
        if len(set(root)) < _DISTINCT_BYTES_MIN:
            raise KeyFault(
                f"{label} is a pattern, not random bytes", code="key_weak", hint=_MAKE_ROOT
            )
        if root in seen:
            raise KeyFault(
                f"{label} and {seen[root]} are the same key",
                code="keys_equal",
                hint="give each series and version a root of its own; " + _MAKE_ROOT,
            )
        seen[bytes(root)] = label
