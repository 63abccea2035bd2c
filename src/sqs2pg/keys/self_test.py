"""Self-test: known answers from the same functions that make keys, tokens and seals.

It runs whenever keys are loaded, in well under a millisecond. A library that does not follow the
standards would fill a table with tokens that nobody could ever make again.
"""

from __future__ import annotations

from sqs2pg.errors import KeyFault
from sqs2pg.keys import aead, derive, hmac_state

# RFC 5869, appendix A.1.
_HKDF_ROOT = bytes.fromhex("0b" * 22)
_HKDF_SALT = bytes(range(13))
_HKDF_INFO = bytes(range(0xF0, 0xFA))
_HKDF_ANSWER = bytes.fromhex(
    "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
)
# RFC 4231, test case 2.
_HMAC_KEY = b"Jefe"
_HMAC_DATA = b"what do ya want for nothing?"
_HMAC_ANSWER = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
# https://c2sp.org/XAES-256-GCM, second test vector.
_SEAL_KEY = b"\x03" * 32
_SEAL_NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
_SEAL_AAD = b"c2sp.org/XAES-256-GCM"
_SEAL_PLAINTEXT = b"XAES-256-GCM"
_SEAL_ANSWER = bytes.fromhex("986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d")


def self_test() -> None:
    """Raise KeyFault `self_test` unless HKDF, HMAC and AES-GCM give the published answers."""
    for name, check in (("HKDF", _hkdf), ("HMAC", _hmac), ("AES-GCM", _seal)):
        try:
            passed = check()
        except Exception:  # noqa: BLE001  # whatever the error, this library cannot be used
            passed = False
        if not passed:
            raise KeyFault(
                f"{name} of the installed cryptographic libraries gives a wrong answer",
                code="self_test",
                hint="reinstall Python and the cryptography package; nothing was masked",
            )


def _hkdf() -> bool:
    return derive.hkdf_sha256(_HKDF_ROOT, _HKDF_INFO, 42, _HKDF_SALT) == _HKDF_ANSWER


def _hmac() -> bool:
    return hmac_state.KeyedHash(_HMAC_KEY).hexdigest(_HMAC_DATA) == _HMAC_ANSWER


def _seal() -> bool:
    return aead.encrypt(_SEAL_KEY, _SEAL_NONCE, _SEAL_PLAINTEXT, _SEAL_AAD) == _SEAL_ANSWER
