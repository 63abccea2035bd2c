"""The vault's cryptography (envelope encryption), and nothing else. Values in, values out; no I/O.

    vault root v ──HKDF──▶ key-encryption key v ──wraps──▶ data key of a subject ──seals──▶ values
                                               └─wraps──▶ reference key ──HMAC──▶ subject reference

Everything is sealed by `keys/aead.py`: keys by format 1 (XAES-256-GCM), values by format 2
(AES-256-GCM under the person's own key). The associated data says what is sealed (with the format's
version), whose it is, and for a value its field and token. So a ciphertext that is moved to another
field, token or subject does not open.

Frozen in docs/reference/vault.md; `tests/vectors/vault.json` holds known answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

from sqs2pg.errors import KeyFault, PermanentFault, SettingsError, Sqs2pgError, TransientFault
from sqs2pg.keys.aead import FORMAT, FORMAT_PLAIN, PersonKey, WrappingKey, associated
from sqs2pg.keys.derive import Secret, hkdf_sha256
from sqs2pg.keys.hmac_state import KeyedHash, hmac_states
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.canonical import text

REFERENCE_BYTES = 16
"""Kept of the HMAC. Among 10**12 subjects, two share a reference with a probability of 10**-15."""

_REFERENCE_LENGTH = REFERENCE_BYTES.to_bytes(4, "big")
# Associated data in the form of `associated`: each field after its length. A prefix that comes
# before a reference includes the reference's length.
_SUBJECT = associated((b"sqs2pg/1/subject",)) + _REFERENCE_LENGTH
_DATA_KEY = associated((b"sqs2pg/1/data-key",)) + _REFERENCE_LENGTH
_REFERENCE_KEY = associated((b"sqs2pg/1/reference-key",))


def key_encryption_key(keyring: Keyring, series: str, version: int) -> WrappingKey:
    """Return the key that wraps keys under a root. Raises KeyFault `key_missing`."""
    return WrappingKey(hkdf_sha256(keyring.root(series, version), b"sqs2pg/1/key-encryption"))


OF_A_PERSON = ("subject_key_damaged", "subject_key_root")
"""Codes of one person's data key that does not open. Nothing but that person's messages needs it,
and it does not mend by itself."""


class SubjectKeyFault(TransientFault):
    """The data key of one subject does not open: nothing of theirs can be sealed or opened.

    Everybody else's can, so it is the matter of their messages and values alone.
    """

    def __init__(self, subject: str, why: str, *, code: str, root: int | None = None) -> None:
        """`subject` is the reference, `root` the version of a vault root that is missing."""
        super().__init__(
            f"the data key of subject {subject} {why}",
            code=code,
            hint="restore its row of pii.subject_key from a backup; or erase that person, whose "
            "id is in the messages that are isolated or quarantined",
        )
        self.subject = subject
        self.root = root


class KeyEncryptionKeys:
    """The key-encryption keys of one keyring's vault roots by version, each derived once."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._keys: dict[int, WrappingKey] = {}

    def __getitem__(self, version: int) -> WrappingKey:
        """Return the key of a version. Raises KeyFault `key_missing`."""
        if version not in self._keys:
            self._keys[version] = key_encryption_key(self._keyring, "vault", version)
        return self._keys[version]

    def open_data_key(
        self, version: int, wrapped: bytes, subject: str, generation: int
    ) -> PersonKey:
        """Return a subject's data key, which is wrapped under the root of a version.

        Raises SubjectKeyFault: `subject_key_damaged`, or `subject_key_root` where the keyring has
        no such version.
        """
        kek = self._of_subject(version, subject)
        try:
            return unwrap_data_key(kek, wrapped, subject, generation)
        except Sqs2pgError:
            pass  # raised below, without this one as its context
        raise _damaged(subject)

    def rewrap_data_key(
        self,
        version: int,
        new: WrappingKey,
        wrapped: bytes,
        subject: str,
        generation: int,
        nonce: bytes = b"",
    ) -> bytes:
        """Return a subject's data key under another key-encryption key. Raises as above."""
        old = self._of_subject(version, subject)
        try:
            return rewrap_data_key(old, new, wrapped, subject, generation, nonce)
        except Sqs2pgError:
            pass
        raise _damaged(subject)

    def derived(self, version: int, first: bytes) -> bytes | None:
        """Return what opens keys that are wrapped under a root and nonces that begin with `first`.

        None where the keyring has no such version.
        """
        try:
            return self[version].derived(first)
        except KeyFault:
            return None

    def _of_subject(self, version: int, subject: str) -> WrappingKey:
        try:
            return self[version]
        except KeyFault:
            pass
        raise SubjectKeyFault(
            subject,
            f"is wrapped under vault root v{version}, which is not in the keyring",
            code="subject_key_root",
            root=version,
        )


def _damaged(subject: str) -> SubjectKeyFault:
    return SubjectKeyFault(subject, "is damaged", code="subject_key_damaged")


def subject_references(reference_key: bytes) -> Callable[[str], str]:
    """Return the function from a subject's id to its reference, 32 hex digits.

    The function takes the canonical form that masking has for `text`, and raises PermanentFault for
    the same ids.
    """
    hexdigest = KeyedHash(reference_key).hexdigest

    def reference(subject: str) -> str:
        return hexdigest(text(subject))[: 2 * REFERENCE_BYTES]

    return reference


def references_of_many(reference_key: bytes) -> Callable[[Iterable[str]], dict[str, str]]:
    """Return `subject_references` for many ids at once: the references by id."""
    inner, outer = hmac_states(reference_key)

    def references(subjects: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for subject in subjects:
            state = inner.copy()
            state.update(subject.encode() if subject.isascii() else text(subject))
            code = outer.copy()
            code.update(state.digest())
            found[subject] = code.hexdigest()[: 2 * REFERENCE_BYTES]
        return found

    return references


def reference_of(reference: Callable[[str], str], id_: str, *, hint: str) -> str:
    """Return the reference of a person whom an operator names.

    Raises SettingsError, which does not quote the id, if no person can have it.
    """
    try:
        return reference(id_)
    except PermanentFault as fault:
        code = fault.code
    # Outside the handler: the fault's traceback would hold the id.
    raise SettingsError(f"no person can have such an id ({code})", code=code, hint=hint)


def wrap_data_key(
    kek: WrappingKey, data_key: bytes, subject: str, generation: int, nonce: bytes = b""
) -> bytes:
    """Return a subject's data key under a key-encryption key. `subject` is its reference.

    `nonce` here and below: one of `aead.nonces`, else a new one.
    """
    return kek.seal(data_key, _of_data_key(subject, generation), nonce)


def unwrap_data_key(kek: WrappingKey, wrapped: bytes, subject: str, generation: int) -> PersonKey:
    """Return the data key. Raises Sqs2pgError where anything differs."""
    return PersonKey(kek.open(wrapped, _of_data_key(subject, generation)))


def rewrap_data_key(
    old: WrappingKey,
    new: WrappingKey,
    wrapped: bytes,
    subject: str,
    generation: int,
    nonce: bytes = b"",
) -> bytes:
    """Return the data key under another key-encryption key. Raises as `unwrap_data_key`."""
    bound = _of_data_key(subject, generation)
    return new.seal(old.open(wrapped, bound), bound, nonce)


def _of_data_key(subject: str, generation: int) -> bytes:
    return _DATA_KEY + bytes.fromhex(subject) + _generation(generation)


@functools.lru_cache(maxsize=64)
def _generation(generation: int) -> bytes:
    return associated((str(generation).encode(),))


def wrap_reference_key(kek: WrappingKey, reference_key: bytes) -> bytes:
    """Return the key of subject references under a key-encryption key."""
    return kek.seal(reference_key, _REFERENCE_KEY)


def unwrap_reference_key(kek: WrappingKey, wrapped: bytes) -> Secret:
    """Return the key of subject references. Raises Sqs2pgError where anything differs."""
    return Secret(kek.open(wrapped, _REFERENCE_KEY))


def seal_value(
    data_key: PersonKey, value: str, field: str, token: str, subject: str, nonce: bytes = b""
) -> bytes:
    """Return a value sealed for its field, token and subject."""
    return data_key.seal(_bytes(value), _of_value(field, token, subject), nonce)


def open_value(data_key: PersonKey, sealed: bytes, field: str, token: str, subject: str) -> str:
    """Return the value. Raises Sqs2pgError where key, field, token, subject or any bit differ."""
    return _text(data_key.open(sealed, _of_value(field, token, subject)))


def _of_value(field: str, token: str, subject: str) -> bytes:
    name, bare = _bytes(token), bytes.fromhex(subject)
    return _value_field(field) + len(name).to_bytes(4, "big") + name + _REFERENCE_LENGTH + bare


@functools.cache
def _value_field(field: str) -> bytes:
    return associated((b"sqs2pg/1/value", _bytes(field)))


def contexts_of_new_people(
    fields: Sequence[str],
) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
    """Return the associated data of what is sealed for new people, as the extension takes it.

    What stands before the reference: of a data key, of an id and of a value of each field; and, in
    second place, what follows the reference of a data key of the first generation.
    """
    return (
        CONTEXT_OF_DATA_KEY,
        _generation(1),
        FORMAT_PLAIN + _SUBJECT,
        contexts_of_values(fields),
    )


CONTEXT_OF_DATA_KEY = FORMAT + _DATA_KEY
"""Associated data of a data key, before the reference, as the extension takes it."""


def contexts_of_values(fields: Sequence[str]) -> tuple[bytes, ...]:
    """Return the same of values, by field, before the token."""
    return tuple(FORMAT_PLAIN + _value_field(field) for field in fields)


def seal_subject(data_key: PersonKey, name: str, subject: str, nonce: bytes = b"") -> bytes:
    """Return a subject's id sealed under its data key, so that a reveal can say whose it is."""
    return data_key.seal(_bytes(name), _SUBJECT + bytes.fromhex(subject), nonce)


def open_subject(data_key: PersonKey, sealed: bytes, subject: str) -> str:
    """Return a subject's id. Raises Sqs2pgError where anything differs."""
    return _text(data_key.open(sealed, _SUBJECT + bytes.fromhex(subject)))


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _text(opened: bytes) -> str:
    return opened.decode("utf-8", "surrogatepass")
