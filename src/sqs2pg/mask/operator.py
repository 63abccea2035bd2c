"""Operators: what every masking operator is, and what its module declares about it.

An operator takes a cleartext string and returns its mask, or None for NULL. It raises
PermanentFault where it cannot mask: it never passes a value through (`keep` alone keeps, because
the mapping says so). A missing value never reaches one: the caller keeps NULL as NULL.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.domain import Roots

Mask = Callable[[str], str | None]

KINDS = ("email", "ip", "phone", "text", "uuid")
"""Kinds of value; `mask/canonical.py` has the canonical form of each."""


def of_kind(kind: str, mask: Mask) -> Mask:
    """Return the mask with a check before it that the value is of its kind; all are of `text`.

    A value of another kind is a fault for every operator, so that changing the operator changes no
    message's outcome. For masks that do not need the canonical form.
    """
    if kind == "text":
        return mask
    canonical = CANONICAL[kind]

    def checked(value: str) -> str | None:
        canonical(value)
        return mask(value)

    return checked


class Properties(msgspec.Struct, frozen=True):
    """What the settings check and the reader of a table may rely on."""

    deterministic: bool
    """Equal canonical values give equal masks, in every process that has the same key."""
    reversible: bool
    """Somebody without a key can get the value back, at least if there are few values."""
    joinable: bool
    """Unequal canonical values give unequal masks, so that masks can be counted and joined."""
    format_preserving: bool
    """The mask has the form of the value and fits the value's column."""
    keyed: bool = False
    """The mask needs a key."""
    recoverable: bool = False
    """Whoever has the key gets the value back from the mask alone (`mask/opening.py`)."""
    values_min: int = 0
    """Fewest possible values of a field for which the mask is safe."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of field that it can mask."""

    @property
    def of_canonical_form(self) -> bool:
        """All spellings of a value have one mask: it is made with a key, of the canonical form."""
        return self.keyed and self.deterministic


class Token(msgspec.Struct, frozen=True):
    """What a pseudonym is made with: `prefix`, then hex of the HMAC under `key`."""

    prefix: str
    key: bytes
    form: str | None = ""
    """The kind whose canonical form the HMAC is of, or "exact": the value's own UTF-8. "": that of
    the field; None: no other code makes it."""

    def __repr__(self) -> str:
        return f"Token(prefix={self.prefix!r}, form={self.form!r})"

    def __rich_repr__(self) -> Any:
        yield from (("prefix", self.prefix), ("form", self.form))


@dataclasses.dataclass(frozen=True, slots=True)
class Operator:
    """A compiled operator. Call it, or its `mask`, which saves a call on a hot path."""

    name: str
    properties: Properties
    mask: Mask = dataclasses.field(repr=False)
    """The compiled closure; may be called from several threads at once."""
    token: Token | None = dataclasses.field(default=None, repr=False)
    """For a pseudonym: what other code needs to make the same one (`mapping/fast_path.py`)."""

    def __call__(self, value: str) -> str | None:
        """Return the value's mask. Raises PermanentFault if it cannot be masked."""
        return self.mask(value)


class Declaration(msgspec.Struct, frozen=True):
    """All that the package knows about one operator. Each operator's module declares it."""

    name: str
    """The value of `mask` in the settings."""
    properties: Properties
    compile: Callable[[str, str, Roots | None], Operator]
    """From a field's kind, its domain and the root keys (None: there are none) to its operator.
    Raises SettingsError `bad_domain`, `extra_missing`; KeyFault `key_missing`."""
    width: int = 0
    """Characters that a column needs for a mask; 0: as many as the value has. A column that cannot
    hold them would send every message to quarantine, so it is refused at start. Encrypted text
    grows with its value: this counts a value of 63 bytes, and each further 32 bytes take 43
    characters more; a value whose token does not fit is quarantined as `too_long`."""
    widths: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By kind of field, where it is not `width`."""
    column_types: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By kind of field: a column type besides the text types that takes its masks, as
    pg_type.typname."""
    shows: str = ""
    """What everybody learns from the mask, for `check --attack`; "" if an attacker would try
    values."""
