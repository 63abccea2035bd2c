"""Canaries: values that occur nowhere else, and the search for them in any output.

A canary is found in any of the forms a leak could take: raw, in either case, hex, base64 (standard
and URL-safe, at each of the three alignments), JSON's and URL's escapes, UTF-16, reversed, and as
its plain hash. Forms of a value's middle would be missed; a canary's core is as long as a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from urllib.parse import quote

HASHES = ("md5", "sha1", "sha256", "sha512")


class Canary:
    """One value, the place it was put, and every form it could show in."""

    def __init__(self, value: str, place: str) -> None:
        self.value = value
        self.place = place
        self.forms = dict(_forms(value))

    def __repr__(self) -> str:
        return f"Canary({self.place})"  # a failing test's report is an output too


def text_canary(place: str) -> Canary:
    """A canary of plain text: 20 lower-case letters and digits."""
    return Canary(f"canary{secrets.token_hex(7)}", place)


def find(canaries: Iterable[Canary], output: bytes | str) -> list[str]:
    """Return `place as form` of each canary found in an output; never the value."""
    data = output.encode("utf-8", "surrogatepass") if isinstance(output, str) else output
    folded = data.lower()
    return [
        f"{canary.place} as {name}"
        for canary in canaries
        for name, form in canary.forms.items()
        if (form in folded if name in _FOLDED else form in data)
    ]


_FOLDED = {"raw", "hex", "reversed", *HASHES}


def _forms(value: str) -> Iterator[tuple[str, bytes]]:
    raw = value.encode()
    yield "raw", raw.lower()
    yield "hex", raw.hex().encode()
    yield "reversed", raw[::-1].lower()
    yield "utf-16", value.encode("utf-16-le")
    for shift in range(3):
        # The part that does not depend on the neighbours: without the characters that share their
        # bits, at either end.
        coded = base64.b64encode(bytes(shift) + raw)
        start = -(-shift * 8 // 6)
        whole = coded[start : (shift + len(raw)) * 8 // 6]
        yield f"base64+{shift}", whole
        yield f"base64url+{shift}", whole.replace(b"+", b"-").replace(b"/", b"_")
    escaped = "".join(f"\\u{ord(c):04x}" for c in value)
    yield "JSON escapes", escaped.encode()
    if (plain := json.dumps(value)[1:-1]) != value:
        yield "JSON", plain.encode()
    for safe in ("", "/"):
        if (percent := quote(value, safe=safe)) != value:
            yield f"percent, all but {safe!r}", percent.encode()
    for name in HASHES:
        yield name, hashlib.new(name, raw, usedforsecurity=False).hexdigest().encode()
