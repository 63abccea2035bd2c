"""Slices: JSON as it stands in a body, checked as a whole and opened only where a path leads.

A number keeps every digit, and a value that is kept as JSON keeps its form: both stay the text that
the producer wrote. Of a name that an object has twice, the last value counts.

Faults are returned or raised without the JSON library's exceptions: those hold the body. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import msgspec

from sqs2pg.errors import PermanentFault

DEPTH_MAX = 256
"""Most objects and arrays inside each other, whatever the interpreter. It is native/json.h's, too.

Every reader of it can go deeper: CPython 3.11 to 1,000 levels less the caller's own frames
(`sys.setrecursionlimit`), 3.12 to 1,500 and 3.13 to 10,000; PostgreSQL's `jsonb` to 660 at the
least `max_stack_depth`, 100 kB, and to 16,000 at the default. Measured with msgspec 0.22.
"""

SHORT = 2 * DEPTH_MAX + 2
"""Characters of JSON; with fewer it cannot be nested too deeply."""

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for text that is not the JSON it is asked for."""

_MARK, _MARK_BYTES = "\ufeff", b"\xef\xbb\xbf"
SPACE = " \t\n\r"
"""What may stand around a JSON value (RFC 8259, section 2)."""
_BRACKETS = bytes.maketrans(b"{[]}", b"(())")
_NO_BRACKET = bytes(set(range(256)) - set(b'{[]}"'))
_OPEN = ord("(")
_RUN = re.compile(rb"\(+|\)+")

_raw = msgspec.json.Decoder(msgspec.Raw).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode


def too_deep(text: str | bytes) -> bool:
    """Whether JSON is nested more deeply than DEPTH_MAX. Of text that is not JSON: a guess.

    SHORT text, or text with few brackets, is not looked at more closely.
    """
    if len(text) < SHORT:
        return False
    # Counted before the text is copied: it may be large.
    if isinstance(text, str):
        if text.count("{") + text.count("[") <= DEPTH_MAX:
            return False
        bare = text.encode("utf-8", "surrogatepass")
    elif text.count(b"{") + text.count(b"[") <= DEPTH_MAX:
        return False
    else:
        bare = text
    if b"\\" in bare:
        bare = bare.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A string without brackets is now two quotes side by side.
    kept = bare.translate(_BRACKETS, _NO_BRACKET).replace(b'""', b"")
    if b'"' in kept:
        kept = b"".join(kept.split(b'"')[::2])
    # The innermost level is taken off as long as that is much. Then few runs are left to count.
    level, before = 0, 0
    while len(kept) * 4 < before * 3 or not level:
        level, before = level + 1, len(kept)
        kept = kept.replace(b"()", b"")
    runs = _RUN.findall(kept)
    deep = accumulate(len(run) if run[0] == _OPEN else -len(run) for run in runs)
    return level + max(deep, default=0) > DEPTH_MAX


def without_mark(body: str | bytes) -> str | bytes:
    """Return a body without the byte order mark that may stand before it.

    A reader of JSON may ignore the mark (RFC 8259, section 8.1). Ours do, wherever a body comes
    from: the queue, an archive or an object.
    """
    if isinstance(body, str):
        return body.removeprefix(_MARK)
    return body.removeprefix(_MARK_BYTES)


class Slice:
    """One JSON value: a slice of the body without the space around it."""

    __slots__ = ("_inside", "_opened", "text")

    def __init__(self, text: str) -> None:
        """`text` must be valid JSON."""
        self.text = text
        self._inside: Any = None
        self._opened: dict[str | int, Slice] = {}

    @property
    def is_object(self) -> bool:
        """Whether it is an object."""
        return self.text[0] == "{"

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return self.text[0] == "["

    def members(self) -> dict[str, msgspec.Raw]:
        """Return the members of an object, not opened yet."""
        if self._inside is None:
            self._inside = _members(self.text)
        return cast("dict[str, msgspec.Raw]", self._inside)

    def elements(self) -> list[msgspec.Raw]:
        """Return the elements of an array, not opened yet."""
        if self._inside is None:
            self._inside = _elements(self.text)
        return cast("list[msgspec.Raw]", self._inside)

    def member(self, name: str) -> Slice | None:
        """Return a member of an object; None where it is missing."""
        return self._open(name, self.members().get(name))

    def element(self, index: int) -> Slice | None:
        """Return an element of an array, from its end if `index` is negative; None: missing."""
        found = self.elements()
        return self._open(index, found[index] if -len(found) <= index < len(found) else None)

    def _open(self, step: str | int, raw: msgspec.Raw | None) -> Slice | None:
        if raw is None:
            return None
        if step not in self._opened:
            self._opened[step] = Slice(raw_text(raw))
        return self._opened[step]

    def read(self, steps: Sequence[str | int]) -> Slice | None:
        """Return the value at the end of the steps; None where it is missing or null.

        Raises PermanentFault `wrong_type` where a step meets another shape.
        """
        value: Slice | None = self
        for step in steps:
            if value is None or value.text == "null":
                return None
            if isinstance(step, str):
                if not value.is_object:
                    raise PermanentFault("wrong_type")
                value = value.member(step)
            else:
                if not value.is_array:
                    raise PermanentFault("wrong_type")
                value = value.element(step)
        return None if value is None or value.text == "null" else value

    def __repr__(self) -> str:
        return "Slice(…)"

    def __rich_repr__(self) -> Any:
        yield "…"


def members_at_once(text: str) -> dict[str, msgspec.Raw] | None:
    """Return the members of an object; None of any other text. `parse` reads it twice for that."""
    text = text.removeprefix(_MARK).strip(SPACE)
    if not (text.startswith("{") and text.endswith("}")):  # quicker than the reader's exception
        return None
    if too_deep(text):
        return None
    try:
        return _members(text)
    except UNREADABLE:
        return None


def raw_text(raw: msgspec.Raw) -> str:
    """Return the slice that msgspec left undecoded; "" for a missing one."""
    return str(raw, "utf-8")


def parse(text: str) -> Slice:
    """Return the JSON value of a text, which may have a byte order mark before it.

    Raises PermanentFault: `not_json`, `bad_unicode`, `too_deep`.
    """
    if too_deep(text):
        raise PermanentFault("too_deep")
    try:
        return Slice(raw_text(_raw(text.removeprefix(_MARK))))
    except UNREADABLE as error:
        code = "bad_unicode" if isinstance(error, UnicodeError) else "not_json"
        if isinstance(error, RecursionError):  # below DEPTH_MAX: the caller's stack is nearly full
            code = "too_deep"
    # Raised here, so that the fault has no `__context__`: those exceptions hold the body.
    raise PermanentFault(code)


def text_of(payload: str | bytes) -> str:
    """Return a payload as text. Raises PermanentFault `bad_unicode`."""
    if isinstance(payload, str):
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        pass
    raise PermanentFault("bad_unicode")


def string(text: str) -> str:
    """Return the string that a slice is. Raises PermanentFault `wrong_type`."""
    if text[0] != '"':
        raise PermanentFault("wrong_type")
    return _string(text)


def number(text: str) -> str:
    """Return the text of the number that a slice is. Raises PermanentFault `wrong_type`."""
    if text[0] not in "-0123456789":
        raise PermanentFault("wrong_type")
    return text


def number_or_string(text: str) -> str:
    """Return the text of the number or string that a slice is. Raises PermanentFault."""
    return _string(text) if text[0] == '"' else number(text)


def boolean_or_string(text: str) -> str:
    """Return the text of the boolean or string that a slice is. Raises PermanentFault."""
    return _string(text) if text[0] == '"' else boolean(text)


def scalar_or_string(text: str) -> str:
    """Return the text of the string, number or boolean that a slice is. Raises PermanentFault."""
    return _string(text) if text[0] == '"' else scalar(text)


def anything_or_string(text: str) -> str:
    """Return the text of the string that a slice is, or the slice itself."""
    return _string(text) if text[0] == '"' else text


def boolean(text: str) -> str:
    """Return the text of the boolean that a slice is. Raises PermanentFault `wrong_type`."""
    if text not in ("true", "false"):
        raise PermanentFault("wrong_type")
    return text


def array(text: str) -> str:
    """Return the slice of an array. Raises PermanentFault `wrong_type`."""
    if text[0] != "[":
        raise PermanentFault("wrong_type")
    return text


def event_name(text: str) -> str:
    """Return the text of a string or whole number. Raises PermanentFault `wrong_type`."""
    if text[0] == '"':
        return _string(text)
    if not text.removeprefix("-").isdecimal():
        raise PermanentFault("wrong_type")
    return "0" if text == "-0" else text


def scalar(text: str) -> str:
    """Return a slice that has nothing inside. Raises PermanentFault `wrong_type`."""
    if text[0] in "{[":
        raise PermanentFault("wrong_type")
    return text


def anything(text: str) -> str:
    """Return the slice itself."""
    return text
